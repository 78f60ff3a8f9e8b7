"""The backend ``numpy-script``: a program as a Python file that needs nothing but NumPy."""

import base64
import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from xlapass import Artifact, Backend, Executable, Graph, LegalityTable, Program, Target, UsageError, Value
from xlapass.core.backend import operation_of
from xlapass.core.files import write_atomically

from .lowering import LOWERINGS, TABLE

HEADER = '''"""{name}, written by xlapass for NumPy."""

import base64

import numpy as np


def constant(text, dtype, *shape):
    return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


def squared_relu(x):
    return np.maximum(x, 0) ** 2


'''

QUIET = '@np.errstate(all="ignore")  # as in XLA, overflow and the like raise no warning'


@dataclasses.dataclass(frozen=True)
class NumpyScript(Backend):
    """Writes a Python file with one function of NumPy arrays.

    Attributes:
      function: the function's name.
    """

    name: ClassVar[str] = "numpy-script"
    default_target: ClassVar[str] = "numpy"
    stages: ClassVar[tuple[str, ...]] = ("script",)

    function: str = "main"

    def legality(self, target: Target) -> LegalityTable:
        """The operations of `lowering.LOWERINGS`."""
        return TABLE

    def emit(self, program: Program, target: Target) -> "Script":
        """Writes the script; raises `xlapass.UnsupportedError` that lists all operations it cannot write."""
        if not self.function.isidentifier():
            raise UsageError(f"{self.function!r} cannot be the name of a function")
        TABLE.require(program, self.name)
        return Script(program, self.function, _write(program, self.function))


class Script(Artifact):
    """The file, as text."""

    suffix: ClassVar[str] = ".py"

    def __init__(self, program: Program, function: str, text: str) -> None:
        self.program = program
        self.function = function
        self.text = text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file; ``import`` or ``runpy`` loads it, on a machine without JAX too."""
        write_atomically(path, self.text.encode())

    def executable(self, **options: Any) -> "ScriptFunction":
        """Runs the file's text and hands out its function."""
        if options:
            raise UsageError(f"a NumPy script has no option {min(options)!r}")
        namespace: dict[str, Any] = {}
        exec(compile(self.text, f"<{self.function}>", "exec"), namespace)
        return ScriptFunction(self.program, namespace[self.function])

    def stage(self, name: str) -> str:
        """The stages ``jaxpr`` and ``script``."""
        if name == "jaxpr":
            return f"{self.program.jaxpr}\n"
        return self.text if name == "script" else super().stage(name)


@dataclasses.dataclass(frozen=True)
class ScriptFunction(Executable):
    """The function of a script, on the structures that the program was traced with."""

    program: Program
    function: Any

    def __call__(self, *args: Any) -> Any:
        """Flattens the arguments, runs, and puts the results back into their structure."""
        flat = [np.asarray(leaf) for leaf in self.program.flatten_arguments(args)]
        return jax.tree_util.tree_unflatten(self.program.out_tree, self.function(*flat))


def _write(program: Program, function: str) -> str:
    """The file: the header, one line per array constant, and the function with one line per operation."""
    graph = Graph(program.jaxpr)
    names = dict(zip(map(id, graph.inputs), _identifiers(program.input_names), strict=True))
    parameters = ", ".join(names.values())
    constants, body = [], []
    for constant in graph.constants:
        if constant.shape:
            names[id(constant)] = f"c{len(names)}_"
            constants.append(f"{names[id(constant)]} = {_array(constant.numpy())}\n")
    for node in graph.nodes():
        operands = [_operand(value, names) for value in node.inputs]
        names[id(node.outputs[0])] = f"v{len(names)}_"
        body.append(f"    {names[id(node.outputs[0])]} = {LOWERINGS[operation_of(node)].render(node, *operands)}\n")
    results = "".join(f"np.asarray({_operand(value, names)}), " for value in graph.outputs)
    start = f"\n\n{QUIET}\ndef {function}({parameters}):\n"
    return HEADER.format(name=program.name) + "".join([*constants, start, *body]) + f"    return ({results.strip()})\n"


def _operand(value: Value, names: dict[int, str]) -> str:
    if id(value) in names:
        return names[id(value)]
    return _array(value.numpy()) if value.shape else _scalar(value.numpy())


def _array(array: np.ndarray) -> str:
    text = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return f"constant({', '.join(map(repr, (text, str(array.dtype), *array.shape)))})"


def _scalar(array: np.ndarray) -> str:
    text = repr(array.item())
    plain = re.fullmatch(r"-?[\d.e+-]+|True|False", text)
    return f"np.{array.dtype.type.__name__}({text if plain else repr(text)})"


def _identifiers(names: Sequence[str]) -> list[str]:
    """Names of inputs as Python parameters, each once; constants and results end in ``_``, so they never clash."""
    found: list[str] = []
    for name in names:
        identifier = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "x"
        identifier = identifier if identifier.isidentifier() else f"x{identifier}"
        while identifier in found or identifier in ("np", "base64", "constant", "squared_relu"):
            identifier += "x"
        found.append(identifier)
    return found
