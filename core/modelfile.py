"""Models named in text: a Python file or a module that defines ``model`` and ``example_inputs``."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import UsageError, UserCodeError
from .instruments.inputs import random_inputs
from .options import suggestion
from .program import Program
from .tracing import trace

DEFAULT_ENTRY = "model"
EXAMPLES = "example_inputs"
CALIBRATION = "calibration_data"
"""Typical inputs, for passes that measure the ranges of values; see `Program.calibration`."""

SHORT_DTYPES = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "c64": "complex64",
    "c128": "complex128",
    "pred": "bool",
    **{f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("i", "int"), ("s", "int"), ("u", "uint"))
       for bits in (2, 4, 8, 16, 32, 64)},
}  # fmt: skip
"""The dtype names of jaxprs and of HLO; the full names are understood as well."""

_INPUT = re.compile(r"([A-Za-z]\w*)\s*(?:\[(.*)\])?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Model:
    """What a reference names.

    Attributes:
      model: anything that `trace` takes, or a `Program`.
      example_args: the example arguments, or None when none are defined.
      source: how the user called the place, for messages.
      entry: name of the variable.
      calibration: typical inputs, as the place defines them, or None.
    """

    model: Any
    example_args: tuple[Any, ...] | None
    source: str
    entry: str
    calibration: Any = None


def load_model(reference: str, entry: str | None = None) -> Model:
    """Loads a model.

    Args:
      reference: the path of a Python file, or an importable module; either may be followed by ``:NAME``.
      entry: name of the model in it; by default ``model``.

    Raises:
      UsageError: there is no such file, module or name, or what it names is no model.
      UserCodeError: the file raised.
    """
    place, name = _split(reference)
    if name is not None and entry is not None and name != entry:
        raise UsageError(
            f"{reference!r} names {name!r}, and the entry is said to be {entry!r}", hint="give one of them"
        )
    entry = name or entry or DEFAULT_ENTRY
    module = _run_file(place) if _is_path(place) else _import_module(place)
    model = _find(module, entry, place)
    _require_model(model, entry, place)
    return Model(model, _example_args(module, place), place, entry, getattr(module, CALIBRATION, None))


def trace_model(loaded: Model, inputs: Sequence[str] = (), dynamic: Sequence[str] = ()) -> Program:
    """Traces a loaded model.

    Args:
      loaded: from `load_model`.
      inputs: types such as ``f32[1,224,224,3]`` that take the place of the example arguments; names among the sizes are
        symbolic dimensions. The program's example inputs are then random.
      dynamic: symbolic shapes for `trace`: one text for every array, or one for each argument (``none`` for none).

    Raises:
      UsageError: no inputs, or they do not fit the model's parameters.
      UserCodeError: the model raised.
    """
    program = _given_program(loaded, [*inputs, *dynamic]) if isinstance(loaded.model, Program) else None
    program = program or _traced(loaded, inputs, dynamic)
    return program if loaded.calibration is None else program.replace(calibration=loaded.calibration)


def _traced(loaded: Model, inputs: Sequence[str], dynamic: Sequence[str]) -> Program:
    args = parse_inputs(inputs) if inputs else loaded.example_args
    if args is None:
        args = _no_arguments(loaded)
    _require_arguments_fit(loaded, args)
    symbolic = _dynamic(dynamic)
    try:
        program = trace(loaded.model, *args, dynamic=symbolic)
    except UsageError:
        raise
    except Exception as error:  # the model is the user's code, and may raise anything
        raise UserCodeError(f"{loaded.entry} of {loaded.source} could not be traced") from error
    return program.replace(examples=tuple(random_inputs(program))) if program.examples is None else program


# -- the file or module ------------------------------------------------------------------------------------------------


def _split(reference: str) -> tuple[str, str | None]:
    """``file.py:name`` in two; a colon that belongs to a path (``C:\\model.py``) is not one of ours."""
    place, colon, name = reference.rpartition(":")
    if colon and place and all(part.isidentifier() for part in name.split(".")) and not Path(reference).exists():
        return place, name
    return reference, None


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place or Path(place).exists()


def _run_file(place: str) -> types.ModuleType:
    """Runs a file as Python runs a script, except that its ``__name__`` is not ``__main__``."""
    path = Path(place)
    if not path.exists():
        near = _similar_files(path)
        raise UsageError(f"there is no file {place!r}", hint=f"did you mean {str(near[0])!r}?" if near else None)
    if path.is_dir():
        raise UsageError(f"{place!r} is a folder", hint="name the Python file that defines the model")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {place!r}: {error.strerror}") from error
    if b"\0" in source:
        raise UsageError(f"{place!r} is not Python source", hint="name the Python file that defines the model")
    module = types.ModuleType(f"_xlapass_model_{path.stem}")  # a name of its own: a file may be called jax.py
    module.__file__ = str(path.resolve())
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        exec(compile(source, place, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # the file is the user's code, and may raise anything
        raise UserCodeError(f"{place} could not be run") from error
    return module


def _similar_files(path: Path) -> list[Path]:
    by_stem = {p.stem: p for p in path.parent.glob("*.py")}
    return [by_stem[stem] for stem in difflib.get_close_matches(path.stem, by_stem, n=1)]


def _import_module(place: str) -> types.ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"{place!r} is neither a file nor a module", hint="name a Python file, or package.module:name")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            file = Path(*place.split(".")).with_suffix(".py")
            raise UsageError(
                f"there is no file or module {place!r}",
                hint=f"did you mean {str(file)!r}?" if file.exists() else "files are named with their .py",
            ) from error
        raise UserCodeError(f"{place} could not be imported") from error
    except (Exception, SystemExit) as error:  # the module is the user's code, and may raise anything
        raise UserCodeError(f"{place} could not be imported") from error


# -- what it defines ---------------------------------------------------------------------------------------------------


def _find(module: types.ModuleType, entry: str, place: str) -> Any:
    found: Any = module
    for part in entry.split("."):
        if not hasattr(found, part):
            names = [n for n, value in vars(found).items() if not n.startswith("_") and _is_own(value, module)]
            raise UsageError(
                f"{place} defines no {entry!r}",
                hint=f"{suggestion(entry, names, 'define model = ...')} (--entry NAME names another)",
            )
        found = getattr(found, part)
    return found


def _is_own(value: Any, module: types.ModuleType) -> bool:
    """Whether a value could be a model that this module made, and not something that it imported."""
    if isinstance(value, Program) or (isinstance(value, tuple) and len(value) == 2):
        return True
    if isinstance(value, type | types.ModuleType) or not callable(value):
        return False
    return getattr(value, "__module__", module.__name__) == module.__name__


def _require_model(model: Any, entry: str, place: str) -> None:
    if isinstance(model, type):
        raise UsageError(
            f"{entry} of {place} is a class, not a model", hint=f"make an instance of it: net = {model.__name__}(...)"
        )
    linen = sys.modules.get("flax.linen")
    if linen is not None and isinstance(model, linen.Module):
        raise UsageError(
            f"{entry} of {place} is a Flax linen module without its variables",
            hint=f"write {entry} = (module, variables), with variables = module.init(key, *example_inputs)",
        )
    pair = isinstance(model, tuple) and len(model) == 2
    if not (isinstance(model, Program) or callable(model) or pair):
        raise UsageError(
            f"{entry} of {place} is of type {type(model).__name__}, and not a model",
            hint="give a function, a Flax nnx or Equinox module, a Flax linen (module, variables) pair, or a Program",
        )


def _example_args(module: types.ModuleType, place: str) -> tuple[Any, ...] | None:
    examples = getattr(module, EXAMPLES, None)
    if callable(examples):
        try:
            examples = examples()
        except Exception as error:  # the function is the user's code, and may raise anything
            raise UserCodeError(f"{EXAMPLES}() of {place} raised") from error
    if examples is None or isinstance(examples, tuple):
        return examples
    raise UsageError(
        f"{EXAMPLES} of {place} must be a tuple with one entry per argument, and is of type {type(examples).__name__}",
        hint=f"write {EXAMPLES} = (x,)",
    )


def _no_arguments(loaded: Model) -> tuple[Any, ...]:
    """No arguments, for a model that needs none."""
    signature = _signature(loaded.model)
    needed = None if signature is None else [p.name for p in signature.parameters.values() if _is_needed(p)]
    if needed == []:
        return ()
    purpose = f" for {', '.join(needed)}" if needed else ""
    raise UsageError(
        f"{loaded.source} defines no {EXAMPLES}{purpose}",
        hint=f"define {EXAMPLES} = (...) there, or describe each argument: --input 'f32[1,28,28]'",
    )


def _is_needed(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variadic


def _require_arguments_fit(loaded: Model, args: tuple[Any, ...]) -> None:
    signature = _signature(loaded.model)
    if signature is None:
        return
    try:
        signature.bind(*args)
    except TypeError as error:
        raise UsageError(
            f"{loaded.entry} of {loaded.source} takes {signature}, and was given {_counted(len(args))}: {error}",
            hint=f"{EXAMPLES} (or --input, repeated) gives one entry per positional argument",
        ) from error


def _counted(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


def _signature(model: Any) -> inspect.Signature | None:
    function = model[0].__call__ if isinstance(model, tuple) and callable(model[0]) else model
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # builtins and some C callables have no signature
        return None


def _given_program(loaded: Model, unwanted: list[str]) -> Program:
    program: Program = loaded.model
    if unwanted:
        raise UsageError(
            f"{loaded.entry} of {loaded.source} is a Program, which is compiled as it was traced",
            hint="leave out --input and --dynamic, and trace it for the types you want",
        )
    if loaded.example_args is None or program.examples is not None:
        return program
    return program.replace(examples=tuple(program.flatten_arguments(loaded.example_args)))


# -- inputs in text ----------------------------------------------------------------------------------------------------


def parse_inputs(texts: Sequence[str]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Types of arguments from texts such as ``f32[1,28,28]``, ``i32`` (a scalar) or ``bf16[batch,128]``.

    One name means one size, in whichever input it stands.
    """
    scope = jax.export.SymbolicScope()
    return tuple(_parse_input(text, scope) for text in texts)


def _parse_input(text: str, scope: Any) -> jax.ShapeDtypeStruct:
    parsed = _INPUT.fullmatch(text.strip())
    if parsed is None:
        raise UsageError(f"cannot read the input {text!r}", hint="write dtype[sizes], for example f32[1,224,224,3]")
    dtype = _parse_dtype(parsed[1], text)
    try:
        shape = jax.export.symbolic_shape(parsed[2] or "", scope=scope)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"cannot read the sizes of the input {text!r}: {str(error).splitlines()[0]}",
            hint="sizes are numbers, or names for dynamic ones: f32[batch,28,28]",
        ) from error
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise UsageError(f"the input {text!r} has a negative size")
    return jax.ShapeDtypeStruct(shape, dtype)


def _parse_dtype(name: str, text: str) -> np.dtype[Any]:
    full = SHORT_DTYPES.get(name, name)
    try:
        dtype = jnp.dtype(full)
    except TypeError:
        raise UsageError(
            f"the input {text!r} has no dtype {name!r}", hint=suggestion(name, [*SHORT_DTYPES, "bool"])
        ) from None
    if dtype.kind in "OSUMm" or dtype.names is not None:
        raise UsageError(f"JAX has no arrays of the dtype {name!r}")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise UsageError(
            f"the input {text!r} has a 64-bit dtype, and JAX's 64-bit types are off",
            hint='put jax.config.update("jax_enable_x64", True) into the file, or set JAX_ENABLE_X64=1',
        )
    return dtype


def _dynamic(texts: Sequence[str]) -> Any:
    shapes = tuple(None if text.lower() == "none" else text for text in texts)
    return shapes if len(shapes) > 1 else next(iter(shapes), None)
