"""``x.at[...].apply(f)``, which is a scatter with a function of the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass

X = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
#: Repeated, negative and too large ones.
ROWS = np.array([1, 3, 1, -1, 9], np.int32)

FORMS = {
    "slice": lambda x, i: x.at[:2].apply(jnp.sin),
    "column": lambda x, i: x.at[:, 2].apply(jnp.exp),
    "repeated rows": lambda x, i: x.at[i].apply(lambda v: v * v + 1),
    "repeated elements": lambda x, i: x.at[i, i].apply(jnp.tanh),
    "clipped": lambda x, i: x.at[i].apply(lambda v: 2 * v, mode="clip"),
    "integers": lambda x, i: x.astype(jnp.int32).at[i].apply(lambda v: 3 * v - 1),
}


@pytest.mark.parametrize("name", FORMS)
def test_as_jax_applies_it(agrees, name):
    agrees(FORMS[name], X, ROWS)


def test_rows_of_any_number():
    (n,) = jax.export.symbolic_shape("n")
    function = FORMS["repeated rows"]
    shapes = (jax.ShapeDtypeStruct((n, 6), np.float32), jax.ShapeDtypeStruct(ROWS.shape, ROWS.dtype))
    run = xlapass.compile(function, *shapes, pipeline="onnx").executable()
    for rows in (X, X[:2]):
        np.testing.assert_allclose(run(rows, ROWS), jax.jit(function)(rows, ROWS), rtol=1e-5)
