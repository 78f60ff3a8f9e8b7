"""The backend: what it writes computes the same, with NumPy alone."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass

X = jnp.linspace(-2.0, 2.0, 12).reshape(3, 4)
W = np.linspace(-1.0, 1.0, 20, dtype=np.float32).reshape(4, 5)


def network(x):
    return {"scores": jax.nn.softmax(jnp.square(jax.nn.relu(x @ W))), "largest": jnp.max(x)}


FUNCTIONS = {
    "elementwise": lambda x: jnp.tanh(x) + jnp.exp(-x) * jnp.log(jnp.abs(x) + 1) - jax.nn.sigmoid(x) ** 3,
    "choice": lambda x: jnp.where(x > 0, x, jnp.clip(x, -1, 1)) + (x < 1),
    "shapes": lambda x: x.T.reshape(2, 6)[None] + jnp.broadcast_to(x.ravel()[:, None], (12, 1)).reshape(1, 2, 6),
    "integers": lambda x: jnp.sum(x.astype(jnp.int32) * 3, axis=0),
    "batched product": lambda x: jnp.einsum("bi,bj->bij", x, x) @ W,
    "infinite": lambda x: jnp.log(x * 0) + jnp.float32(np.inf),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_computes_the_same(name):
    run = xlapass.compile(FUNCTIONS[name], X, pipeline="numpy").executable()
    want = FUNCTIONS[name](X)
    (have,) = jax.tree_util.tree_leaves(run(X))
    assert have.dtype == want.dtype
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


def test_structures_and_whole_composites():
    artifact = xlapass.compile(network, X, pipeline="numpy")
    assert "squared_relu(v" in artifact.stage("script")
    have, want = artifact.executable()(X), network(X)
    assert have.keys() == want.keys()
    np.testing.assert_allclose(have["scores"], want["scores"], rtol=1e-5)


def test_the_file_runs_without_jax(tmp_path):
    xlapass.compile(network, X, pipeline="numpy", backend="numpy-script{function=predict}").save(tmp_path / "net.py")
    np.save(tmp_path / "x.npy", X)
    code = """
import sys; sys.modules["jax"] = sys.modules["xlapass"] = None
import numpy as np, net
np.save("y.npy", net.predict(np.load("x.npy"))[1])
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), network(X)["scores"], rtol=1e-5)


def test_everything_unsupported_is_listed_with_its_line():
    with pytest.raises(xlapass.UnsupportedError, match="2 operation") as caught:
        xlapass.compile(lambda x: jax.lax.sort(x) + jax.lax.cumsum(x, 0), X, pipeline="numpy")
    assert "sort is not supported" in str(caught.value) and "test_backend.py" in str(caught.value)


def test_wrong_options():
    with pytest.raises(xlapass.UsageError, match="name of a function"):
        xlapass.compile(network, X, pipeline="numpy", backend="numpy-script{function=2d}")
