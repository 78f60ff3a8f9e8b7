"""The files under other runtimes than ONNX Runtime on the CPU: OpenVINO, and onnxruntime-web in a browser."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("onnx_ir", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

import xlapass
from jax import lax
from xlapass.backends.onnx.backend import OnnxBackend

RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((1, 16, 16, 3)).astype(np.float32)
ROWS = RNG.standard_normal((2, 6, 16)).astype(np.float32)


class Images(nn.Module):
    """A small network of convolutions."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3), (2, 2))(x)))
        x = nn.max_pool(nn.hard_swish(nn.Conv(8, (3, 3), feature_group_count=8)(x)), (2, 2), (2, 2))
        return nn.softmax(nn.Dense(5)(x.mean((1, 2))))


class Rows(nn.Module):
    """A transformer block."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(4, qkv_features=16)(nn.LayerNorm()(x))
        return x + nn.Dense(16)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(x))))


def module(network, x):
    variables = network.init(jax.random.key(0), x)
    return lambda x: network.apply(variables, x)


def loops(x):
    """A scan, a loop, indices, a sort and integers."""
    total, rows = lax.scan(lambda c, row: (0.5 * c + row, c.sum()), jnp.zeros(x.shape[1:]), x)
    grown = lax.while_loop(lambda v: v.sum() < 50, lambda v: v * 1.5 + 1, jnp.abs(x[0, 0]))
    return total, rows, grown, jnp.sort(x[0, 0]), jnp.argmax(x, -1), x[:, jnp.array([1, 0])]


MODELS = {
    "images": (module(Images(), IMAGE), IMAGE),
    "rows": (module(Rows(), ROWS), ROWS),
    "loops": (loops, ROWS),
}


def saved(name, folder, **options):
    """The file of a model, and what JAX computes."""
    function, x = MODELS[name]
    artifact = xlapass.compile(function, x, pipeline="onnx", backend=OnnxBackend(**options))
    path = Path(folder) / f"{name}.onnx"
    artifact.save(path)
    return path, x, [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(jax.jit(function)(x))]


@pytest.mark.parametrize("opset", [0, 21])
@pytest.mark.parametrize("name", MODELS)
def test_openvino(name, opset, tmp_path):
    openvino = pytest.importorskip("openvino", reason="the openvino package is not installed")
    path, x, expected = saved(name, tmp_path, opset=opset)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled([x])
    for port, want in zip(compiled.outputs, expected, strict=True):
        np.testing.assert_allclose(results[port], want, rtol=1e-3, atol=1e-4)


#: The page's own script: runs the model on one input and leaves names and numbers in the document.
PAGE = """<!doctype html><meta charset="utf-8"><pre id="result">running</pre>
<script src="web/ort.wasm.min.js"></script>
<script>
(async () => {
  try {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = new URL("web/", location).href;
    const {shape, data} = await (await fetch("input.json")).json();
    const session = await ort.InferenceSession.create(new Uint8Array(await (await fetch("model.onnx")).arrayBuffer()));
    const feed = {[session.inputNames[0]]: new ort.Tensor("float32", Float32Array.from(data), shape)};
    const results = await session.run(feed);
    const found = session.outputNames.map(n => ({shape: results[n].dims, data: Array.from(results[n].data, Number)}));
    document.getElementById("result").textContent = JSON.stringify(found);
  } catch (error) {
    document.getElementById("result").textContent = "error: " + error;
  }
  await fetch("done", {method: "POST", body: document.getElementById("result").textContent});
})();
</script>
"""


def browser():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@functools.cache
def web_package():
    """The folder ``dist`` of the npm package: from ``ONNXRUNTIME_WEB``, the checkout's packages, or npm's own."""
    roots = [os.environ.get("ONNXRUNTIME_WEB", ""), Path(__file__).parents[2] / "node_modules" / "onnxruntime-web"]
    if shutil.which("npm"):
        listed = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=False).stdout.strip()
        roots.append(Path(listed) / "onnxruntime-web")
    return next(
        (Path(root) / "dist" for root in roots if root and (Path(root) / "dist" / "ort.wasm.min.js").exists()), None
    )


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; what the page posts is its answer."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def do_POST(self):
        self.server.answer = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(204)
        self.end_headers()
        self.server.answered.set()

    def log_message(self, *_):
        pass


@pytest.mark.skipif(browser() is None, reason="there is no Chromium (apt install chromium)")
@pytest.mark.skipif(web_package() is None, reason="there is no onnxruntime-web (npm install -g onnxruntime-web)")
@pytest.mark.parametrize("name", MODELS)
def test_a_browser(name, tmp_path):
    path, x, expected = saved(name, tmp_path, opset=21)
    path.rename(tmp_path / "model.onnx")
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "input.json").write_text(json.dumps({"shape": x.shape, "data": x.ravel().tolist()}))
    (tmp_path / "web").symlink_to(web_package())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, directory=str(tmp_path)))
    server.answer, server.answered = "", threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", profile]
    process = subprocess.Popen(
        [*command, f"http://127.0.0.1:{server.server_port}/index.html"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.answered.wait(120), "the page did not answer"
    finally:
        process.terminate()
        process.wait(30)
        server.shutdown()
        server.server_close()
    assert not server.answer.startswith("error"), server.answer
    for have, want in zip(json.loads(server.answer), expected, strict=True):
        assert tuple(have["shape"]) == want.shape
        np.testing.assert_allclose(np.reshape(have["data"], want.shape), want, rtol=1e-3, atol=1e-4)
