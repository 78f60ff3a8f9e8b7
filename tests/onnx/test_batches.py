"""Matrix factorisations of any number of matrices, and convolutions with a kernel for each image."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import pytest
import xlapass
from jax import lax

RNG = np.random.default_rng(0)


def matrices(count):
    """Symmetric and positive definite."""
    a = RNG.standard_normal((count, 3, 3)).astype(np.float32)
    return a @ a.transpose(0, 2, 1) + 2 * np.eye(3, dtype=np.float32)


FORMS = {
    "cholesky": jnp.linalg.cholesky,
    "inverse": jnp.linalg.inv,
    "determinant": lambda a: jnp.linalg.slogdet(a)[1],
    "triangular": lambda a: jsl.solve_triangular(a, jnp.ones((a.shape[0], 3, 1)), lower=True),
    "orthogonal": lambda a: jnp.abs(jnp.linalg.qr(a)[1]),
    "symmetric": jnp.linalg.eigvalsh,
    "singular values": jnp.linalg.svdvals,
    "eigenvalues": lambda a: jnp.sort(jnp.abs(jnp.linalg.eigvals(a)), -1),
}


@pytest.mark.parametrize("name", FORMS)
def test_as_many_matrices_as_there_are(name):
    function = FORMS[name]
    run = xlapass.compile(function, matrices(2), pipeline="onnx", dynamic="b, ...").executable()
    for count in (1, 4):
        a = matrices(count)
        np.testing.assert_allclose(run(a), function(a), rtol=1e-3, atol=1e-4)


def test_a_kernel_for_each_image():
    """As many groups as images: JAX traces and exports that, but does not run it with symbolic dimensions."""
    function = jax.vmap(lambda x, w: lax.conv(x, w, (1, 1), "SAME"))
    images, kernels = (RNG.standard_normal(s).astype(np.float32) for s in ((4, 1, 3, 5, 5), (4, 2, 3, 3, 3)))
    made = xlapass.compile(function, images, kernels, pipeline="onnx", dynamic="b, ...")
    assert "agrees" not in made.verification
    for count in (1, 4):
        x, w = images[:count], kernels[:count]
        np.testing.assert_allclose(made.executable()(x, w), function(x, w), rtol=1e-4, atol=1e-4)
