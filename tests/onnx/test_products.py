"""Products of matrices with vectors, where the matrix stands transposed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


FORMS = {
    "transposed": (lambda w, v: w.T @ v, (3, 5), (3,)),
    "transposed, of something": (lambda w, v: jnp.sin(w).T @ jnp.cos(v), (3, 5), (3,)),
    "transposed, then changed": (lambda w, v: jnp.tanh(jnp.swapaxes(w, 0, 1)) @ v, (3, 5), (3,)),
    "matrices": (lambda w, v: jnp.swapaxes(w, 1, 2) @ v, (2, 3, 5), (3,)),
    "first axis": (lambda w, v: jnp.tensordot(w, v, axes=((0,), (0,))), (3, 4, 5), (3,)),
    "several axes": (lambda w, v: jnp.einsum("abc,ca->b", w, v), (3, 4, 5), (5, 3)),
    "gradient": (lambda w, v: jax.grad(lambda u: jnp.sum(jnp.sin(w @ u)))(v), (3, 5), (5,)),
    "in a loop": (lambda w, v: lax.fori_loop(0, 3, lambda _, u: w.T @ jnp.tanh(u), v), (3, 3), (3,)),
}


@pytest.mark.parametrize("name", FORMS)
def test_transposed_matrix_times_vector(agrees, name):
    """ONNX Runtime 1.31 fuses the transpose with the product, which is wrong for a vector on the right."""
    function, *shapes = FORMS[name]
    agrees(function, *(normal(*shape) for shape in shapes))


def test_a_summed_row_needs_no_transpose(operators):
    """A vector takes the matrix as it is, from the side where the summed axis is."""
    dot = lambda axis: lambda w, v: lax.dot_general(w, v, (((axis,), (0,)), ((), ())))  # noqa: E731
    assert operators(dot(0), normal(3, 5), normal(3)) == ["MatMul"]
    assert operators(dot(1), normal(3, 5), normal(5)) == ["MatMul"]
