"""The backend as a whole: a file that LiteRT runs, with the results of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import xlapass
from xlapass.backends.tflite.artifact import TfliteArtifact

W = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)


def model(x):
    return {"y": jax.nn.relu(x @ W), "s": jax.lax.scan(lambda c, t: (c * 0.9 + t, c), jnp.zeros(8), x)[1]}


def test_a_file_that_other_tools_read(tmp_path):
    artifact = xlapass.compile(model, X, pipeline="tflite")
    want = model(X)
    for threads in (0, 1):
        have = artifact.executable(num_threads=threads)(X)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), have, want)
    artifact.save(tmp_path / "model.tflite")
    runner = TfliteArtifact.load(tmp_path / "model.tflite").get_signature_runner()
    np.testing.assert_allclose(runner(x=X)["output.y"], want["y"], rtol=1e-5, atol=1e-6)
