"""What is measured: each contender makes, of a zoo model, functions that run it once and return its flat outputs."""

from __future__ import annotations

import abc
import functools
import importlib.metadata
import importlib.util
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xlapass
from measure import Run
from zoo import ZooModel


class Contender(abc.ABC):
    """A way to run a model. `variants` are equivalent ways of its own; the fastest one counts."""

    name: str
    about: str

    @abc.abstractmethod
    def absent(self) -> str | None:
        """Why it cannot take part on this machine; None when it can."""

    @abc.abstractmethod
    def variants(self, model: ZooModel) -> dict[str, Run]:
        """Functions without arguments that compute the outputs and wait for them."""


class JaxJit(Contender):
    """`jax.jit` as people use it: weights as arguments, or closed over as constants."""

    def __init__(self, name: str = "jax.jit") -> None:
        self.name = name
        self.about = f"jax {jax.__version__}; weights as arguments or as constants, whichever is faster"

    def absent(self) -> str | None:
        return None

    def variants(self, model: ZooModel) -> dict[str, Run]:
        variants = {"arguments": _blocking(jax.jit(model.fn), (model.params, *model.inputs))}
        if model.family != "training":  # there the weights change at each step
            variants["constants"] = _blocking(jax.jit(model.bind()), model.inputs)
        return variants


class XlapassJit(Contender):
    """`xlapass.jit` with the `cpu` pipeline, weights closed over unless they are being trained."""

    def __init__(self, name: str = "xlapass.jit", **options: Any) -> None:
        self.name = name
        tuned = ", tuned: what is measured is kept in the user's file" if options.get("tune") else ""
        self.about = f"xlapass {xlapass.__version__}, pipeline cpu{tuned}"
        self._options = options

    def absent(self) -> str | None:
        unknown = [option for option in self._options if option not in inspect.signature(xlapass.jit).parameters]
        if unknown:
            return f"xlapass.jit of this version takes no {unknown[0]!r}"
        return _missing_pipeline("cpu")

    def variants(self, model: ZooModel) -> dict[str, Run]:
        function, arguments = function_and_arguments(model)
        return {"": _blocking(xlapass.jit(function, pipeline="cpu", **self._options), arguments)}


class OnnxRuntime(Contender):
    """ONNX Runtime on the file that xlapass exports, its threads spinning between operators or not."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self.about = _about("onnxruntime")

    def absent(self) -> str | None:
        return _missing_package("onnxruntime") or _missing_pipeline("onnx")

    def variants(self, model: ZooModel) -> dict[str, Run]:
        import onnxruntime

        variants: dict[str, Run] = {}
        with tempfile.TemporaryDirectory() as folder:
            path = _export(model, "onnx", Path(folder))
            # Spinning is the default, and slow where other work wants the cores.
            for variant, spin in {"spinning": "1", "waiting": "0"}.items():
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = thread_count()
                options.add_session_config_entry("session.intra_op.allow_spinning", spin)
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                feed = {meta.name: array for meta, array in zip(session.get_inputs(), flat_inputs(model), strict=True)}
                variants[variant] = functools.partial(session.run, None, feed)
        return variants


class OpenVino(Contender):
    """OpenVINO on the same ONNX file, in float32: its own choice would be bfloat16 where the CPU has it."""

    name = "openvino"

    def __init__(self) -> None:
        self.about = _about("openvino") + ", float32 asked for"

    def absent(self) -> str | None:
        return _missing_package("openvino") or _missing_pipeline("onnx")

    def variants(self, model: ZooModel) -> dict[str, Run]:
        import openvino

        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": thread_count(),
        }
        core = openvino.Core()
        with tempfile.TemporaryDirectory() as folder:
            compiled = core.compile_model(core.read_model(_export(model, "onnx", Path(folder))), "CPU", config)
        request, inputs = compiled.create_infer_request(), list(flat_inputs(model))

        def run() -> list[np.ndarray]:
            results = request.infer(inputs, share_inputs=True, share_outputs=True)
            return [results[port] for port in compiled.outputs]

        return {"": run}


class LiteRt(Contender):
    """LiteRT, with XNNPACK, on the TFLite file that xlapass exports."""

    name = "litert"

    def __init__(self) -> None:
        self.about = _about("ai-edge-litert")

    def absent(self) -> str | None:
        return _missing_package("ai_edge_litert") or _missing_pipeline("tflite")

    def variants(self, model: ZooModel) -> dict[str, Run]:
        from ai_edge_litert.interpreter import Interpreter

        with tempfile.TemporaryDirectory() as folder:
            content = Path(_export(model, "tflite", Path(folder))).read_bytes()
        interpreter = Interpreter(model_content=content, num_threads=thread_count())
        interpreter.allocate_tensors()
        inputs = list(zip(interpreter.get_input_details(), flat_inputs(model), strict=True))
        outputs = interpreter.get_output_details()

        def run() -> list[np.ndarray]:
            for detail, array in inputs:
                interpreter.set_tensor(detail["index"], array)
            interpreter.invoke()
            return [interpreter.get_tensor(detail["index"]) for detail in outputs]

        return {"": run}


REFERENCE = "jax.jit"
# The reference against itself: how far from 1 the ratios stray by chance.
CONTROL = "jax.jit again"


def every_contender() -> list[Contender]:
    """All contenders in the order of the report, the reference first."""
    return [
        JaxJit(REFERENCE),
        XlapassJit(),
        XlapassJit("xlapass.jit tuned", tune=True),
        OnnxRuntime(),
        LiteRt(),
        OpenVino(),
        JaxJit(CONTROL),
    ]


def function_and_arguments(model: ZooModel) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The model with its weights closed over; a training step takes its state as the first argument."""
    if model.family == "training":
        return model.fn, (model.params, *model.inputs)
    return model.bind(), model.inputs


def flat_inputs(model: ZooModel) -> list[np.ndarray]:
    """The inputs as arrays of their own: OpenVINO shares memory only with writable ones."""
    return [np.array(leaf) for leaf in jax.tree.leaves(function_and_arguments(model)[1])]


def _blocking(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Run:
    return lambda: jax.tree.leaves(jax.block_until_ready(function(*arguments)))


def _export(model: ZooModel, pipeline: str, folder: Path) -> str:
    function, arguments = function_and_arguments(model)
    path = folder / f"{model.name}.{pipeline}"
    xlapass.compile(function, *arguments, pipeline=pipeline).save(path)
    return str(path)


def thread_count() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def _missing_package(module: str) -> str | None:
    return None if importlib.util.find_spec(module) else f"{module} is not installed"


def _missing_pipeline(name: str) -> str | None:
    if name in xlapass.load_registry().names("pipeline"):
        return None
    return f"xlapass of this version has no pipeline {name!r}"


def _about(distribution: str) -> str:
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution
