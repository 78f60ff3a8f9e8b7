"""Measures int8: kernels, size, latency and error, beside what other quantizers make of the same data.

    make tensorflow
    python benchmarks/quantization.py [MODEL ...] [--seconds 20] [--out benchmarks/results/quantization.json]

ai-edge-quantizer must be installed, and TensorFlow in the environment that ``make tensorflow`` makes; rows of
what is missing say so.

Weights are random, and inputs normal: the error is the signal-to-noise ratio of the outputs in dB against float32 on
inputs that calibration has not seen. Latencies are CPU time on one thread, which a busy machine changes least, and
their ratios to float32 of the same runtime, measured in alternation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import numpy as np
import xlapass
import zoo
from measure import quartiles
from xlapass.backends.tflite.conversion import portable_module
from xlapass.backends.tflite.engines import ENGINES
from xlapass.core.pass_ import RewritePass
from xlapass.core.patterns import Op
from xlapass.core.rewrite import Build, Rule

CALIBRATION_BATCHES = 8
THREADS = 1
MINIMUM_ROUNDS = 9
SEED = 7
PYTHON = str(Path(__file__).parent.parent / ".venv-tensorflow/bin/python")
"""Of the environment that has TensorFlow."""

Batch = tuple[np.ndarray, ...]


class EncoderLayer(nn.Module):
    heads: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, width = x.shape
        y = nn.LayerNorm()(x)
        parts = [nn.Dense(width)(y).reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3) for _ in range(3)]
        shares = nn.softmax(parts[0] @ parts[1].transpose(0, 1, 3, 2) / np.sqrt(width // self.heads))
        x = x + nn.Dense(width)((shares @ parts[2]).transpose(0, 2, 1, 3).reshape(x.shape))
        return x + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x))))


class Encoder(nn.Module):
    """Layers that normalize first, as most encoders now do."""

    depth: int = 6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.depth):
            x = EncoderLayer()(x)
        return nn.LayerNorm()(x)


def load_model(name: str) -> tuple[Callable[..., Any], Batch]:
    """A function of arrays, and example arguments."""
    if name != "encoder":
        model = zoo.load(name)
        return model.bind(), tuple(np.asarray(x) for x in model.inputs)
    module, x = Encoder(), np.random.default_rng(SEED).standard_normal((1, 128, 512)).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    return lambda x: module.apply(variables, x), (x,)


def drawn(example: Batch, seeds: Sequence[int]) -> Iterator[Batch]:
    """Batches like the example, of normal numbers."""
    for seed in seeds:
        rng = np.random.default_rng([SEED, seed])
        yield tuple(rng.standard_normal(x.shape).astype(x.dtype) for x in example)


def sqnr(want: Any, have: Any) -> float:
    """Signal to quantization noise in dB, over all outputs."""
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(v)]).astype(np.float64) for v in (want, have))
    return float(10 * np.log10((a**2).sum() / max(((a - b) ** 2).sum(), 1e-30)))


# -- what others make of the float files -------------------------------------------------------------------------------


def by_onnxruntime(artifact: Any, batches: Sequence[Batch], dynamic: bool) -> bytes:
    """The float model, quantized by ``onnxruntime.quantization`` with uint8 activations and int8 weights."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, names: Sequence[str]) -> None:
            self.batches = iter([dict(zip(names, batch, strict=True)) for batch in batches])

        def get_next(self) -> Any:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(_bytes(artifact))
        prepared = Path(folder) / "prepared.onnx"
        q.shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if dynamic:
            q.quantize_dynamic(str(prepared), str(target), per_channel=True, weight_type=q.QuantType.QInt8)
        else:
            import onnx

            names = [i.name for i in onnx.load(str(prepared), load_external_data=False).graph.input]
            options = {"per_channel": True, "activation_type": q.QuantType.QUInt8, "weight_type": q.QuantType.QInt8}
            # Its adjustment of scales for large biases fails on scales per channel (seen with 1.31).
            extra = {"QDQDisableWeightAdjustForInt32Bias": True}
            q.quantize_static(str(prepared), str(target), Reader(names), extra_options=extra, **options)
        return target.read_bytes()


def by_ai_edge(artifact: Any, batches: Sequence[Batch], dynamic: bool) -> bytes:
    """The float model, quantized by ai-edge-quantizer."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.tflite", Path(folder) / "int8.tflite"
        source.write_bytes(artifact.model)
        names = Interpreter(model_content=artifact.model).get_signature_list()["serving_default"]["inputs"]
        made = quantizer.Quantizer(str(source))
        made.load_quantization_recipe(recipe.dynamic_wi8_afp32() if dynamic else recipe.static_wi8_ai8())
        data = {"serving_default": [dict(zip(names, batch, strict=True)) for batch in batches]}
        made.quantize(None if dynamic else made.calibrate(data)).export_model(str(target), overwrite=True)
        return target.read_bytes()


def _padded_with_zeros(match: Any) -> Any:
    """Max pooling whose padding is an operation of its own, with zeros: after ReLU they are as good as -inf."""
    node = match.root
    padding, shape = node.params["padding"], node.outputs[0].shape
    options = {name: node.params[name] for name in ("window_dimensions", "window_strides")}

    def pool(x: jax.Array) -> jax.Array:
        x = jax.numpy.pad(x, padding)
        return jax.lax.reduce_window(x, -np.inf, jax.lax.max, padding="VALID", **options).reshape(shape)

    return match.trace(pool, node.inputs[0])


@dataclasses.dataclass(frozen=True)
class FinitePadding(RewritePass):
    """TensorFlow's calibration takes the -inf of max pooling's padding for a value, and its scale becomes 1e36."""

    name: ClassVar[str] = "finite-padding"
    numerics: ClassVar[Any] = "lossy"

    @classmethod
    def own_rules(cls) -> Sequence[Rule]:
        """One, for pooling that pads."""
        padded = Op(("reduce_window_max",), None, lambda node: any(map(any, node.params["padding"])))
        return (Rule("pad-with-zeros", padded, Build(_padded_with_zeros), None, "lossy"),)


def by_tensorflow(artifact: Any, batches: Sequence[Batch], dynamic: bool) -> bytes:
    """The float program, quantized by TensorFlow's converter."""
    program = xlapass.PassManager("lower-composites").run(artifact.program)
    program = xlapass.PassManager([FinitePadding()]).run(program)
    types = {"inputs": _types(program.in_avals), "outputs": _types(program.out_avals)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "module.bin").write_bytes(portable_module(program, ENGINES["tensorflow"]))
        (folder / "types.json").write_text(json.dumps(types))
        np.savez(
            folder / "batches.npz", **{f"x{k}": np.stack(rows) for k, rows in enumerate(zip(*batches, strict=True))}
        )
        script = Path(__file__).parent / "tensorflow_int8.py"
        command = [PYTHON, str(script), name, "dynamic" if dynamic else "static"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
        return (folder / "int8.tflite").read_bytes()


def _types(avals: Sequence[Any]) -> list[tuple[str, list[int]]]:
    return [(str(aval.dtype), list(aval.shape)) for aval in avals]


# -- running files -----------------------------------------------------------------------------------------------------


def onnx_runner(model: bytes) -> Callable[..., Any]:
    """ONNX Runtime, with ``THREADS`` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = THREADS, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # at the expense of the others
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return lambda *args: session.run(None, dict(zip(names, args, strict=True)))


def tflite_runner(model: bytes) -> Callable[..., Any]:
    """LiteRT, with ``THREADS`` threads; a file whose inputs and outputs are int8 is given and gives floats."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=THREADS)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(*args: Any) -> Any:
        for detail, array in zip(inputs, args, strict=True):
            if detail["dtype"] == np.int8:
                scale, zero = detail["quantization"]
                array = np.clip(np.rint(array / scale) + zero, -128, 127).astype(np.int8)
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        results = []
        for detail in outputs:
            array = interpreter.get_tensor(detail["index"])
            if detail["dtype"] == np.int8:
                scale, zero = detail["quantization"]
                array = (array.astype(np.float32) - zero) * scale
            results.append(array)
        return results

    return run


RUNTIMES: dict[str, tuple[Any, dict[str, Any], dict[str, str]]] = {
    "onnx": (onnx_runner, {"onnxruntime": by_onnxruntime}, {"static": "onnx-int8", "dynamic": "onnx-dynamic"}),
    "tflite": (
        tflite_runner,
        {"ai-edge": by_ai_edge, "tensorflow": by_tensorflow},
        {"static": "mobile", "dynamic": "edge"},
    ),
}
"""The float pipeline, how its files run, who else quantizes them, and the pipelines by scheme."""


def alternate(runs: Sequence[Callable[[], Any]], seconds: float) -> np.ndarray:
    """CPU times of the `runs`, `[runs, rounds]` in seconds, each once a round."""
    for run in runs:
        run()
    rounds: list[list[float]] = []
    deadline = time.perf_counter() + seconds
    while len(rounds) < MINIMUM_ROUNDS or time.perf_counter() < deadline:
        times = []
        for run in runs:
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
        rounds.append(times)
    return np.array(rounds).T


def measure(name: str, runtime: str, seconds: float) -> dict[str, Any]:
    """One model on one runtime, under every scheme."""
    model, example = load_model(name)
    runner, others, pipelines = RUNTIMES[runtime]
    batches = list(drawn(example, range(CALIBRATION_BATCHES)))
    unseen = list(drawn(example, range(100, 104)))
    want = [jax.jit(model)(*batch) for batch in unseen]
    exact = xlapass.compile(model, *example, pipeline=runtime)
    files = {"float32": _bytes(exact)}
    found: dict[str, Any] = {}
    for scheme, pipeline in pipelines.items():
        artifact = xlapass.compile(model, *example, pipeline=pipeline, calibration_data=batches)
        files[scheme] = _bytes(artifact)
        found[scheme] = {"kernels": artifact.kernels.summary()}
        for other, quantized in others.items():
            try:
                theirs = quantized(exact, batches, scheme == "dynamic")
                runner(theirs)(*example)
                files[f"{scheme}, {other}"] = theirs
            except Exception as error:  # another package, which may raise anything: its row stays empty
                failure = f"{type(error).__name__}: {str(error)[:200]}"
                found[f"{scheme}, {other}"] = {"failed": failure}
    runs = {label: runner(file) for label, file in files.items()}
    times = alternate([lambda run=run: run(*unseen[0]) for run in runs.values()], seconds)
    base = list(runs).index("float32")
    for index, (label, run) in enumerate(runs.items()):
        entry = found.setdefault(label, {})
        entry["megabytes"] = len(files[label]) / 1e6
        entry["size"] = len(files[label]) / len(files["float32"])
        entry["milliseconds"] = quartiles(1e3 * times[index])[1]
        entry["latency"] = quartiles(times[index] / times[base])[1]
        entry["sqnr"] = float(np.mean([sqnr(a, run(*batch)) for a, batch in zip(want, unseen, strict=True)]))
    return found


def _bytes(artifact: Any) -> bytes:
    return bytes(artifact.serialized if hasattr(artifact, "serialized") else artifact.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["resnet18", "mobilenet-v2", "encoder"])
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    for name in args.models:
        for runtime in args.runtimes:
            found = results[f"{name} {runtime}"] = measure(name, runtime, args.seconds)
            print(f"\n{name}, {runtime}\n{'':20} {'ms':>8} {'latency':>8} {'MB':>8} {'size':>6} {'SQNR dB':>8}")
            for label, entry in found.items():
                if "failed" in entry:
                    print(f"{label:20} {entry['failed']}")
                    continue
                numbers = (entry["milliseconds"], entry["latency"], entry["megabytes"], entry["size"], entry["sqnr"])
                print("{:20} {:8.2f} {:8.3f} {:8.2f} {:6.3f} {:8.1f}".format(label, *numbers))
            for entry in found.values():
                if "kernels" in entry:
                    print(entry["kernels"])
            if args.out is not None:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
