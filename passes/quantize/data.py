"""Typical inputs, in whichever form the user has them, as flat inputs of a program.

A source is an iterable (a list, a generator, a data loader), a function that returns one, the path of an ``.npz`` or
``.npy`` file, or of a directory of such. An item of an iterable is a tuple of arguments, one argument, or a dictionary
of inputs by name. An array in a file holds many samples along its first axis.
"""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...core.errors import UsageError, UserCodeError
from ...core.program import Program

SUFFIXES = (".npz", ".npy")


def flat_batches(source: Any, program: Program) -> tuple[Iterator[list[Any]], int | None]:
    """Flat inputs of ``program``, in the layout in which it was traced, and how many there are, if that is known.

    Raises:
      UsageError: the source is not of a form named above, or an item does not fit the program.
    """
    original = _as_traced(program)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            return _from_directory(path, original)
        return _from_file(path, original)
    if callable(source):
        source = _called(source)
    if isinstance(source, Mapping) or not isinstance(source, Iterable) or hasattr(source, "shape"):
        raise UsageError(
            f"calibration data are an iterable of inputs or a path, and not a {type(source).__name__}",
            hint="write calibration_data = [(x,), ...], with one tuple of arguments for each batch",
        )
    total = len(source) if isinstance(source, Sized) else None
    return (_flat(item, original, number) for number, item in enumerate(source, 1)), total


def rewound(source: Any, count: int) -> tuple[Any, Any]:
    """The source, and its beginning: of what can be gone through once only, ``count`` items are kept for both."""
    if callable(source):
        source = _called(source)
    if not isinstance(source, Iterator):
        return source, source
    first = list(itertools.islice(source, count))
    return itertools.chain(first, source), first


def _as_traced(program: Program) -> Program:
    """With the input types that the user traced for, whatever a pass has done to the interface since."""
    if not program.input_permutations:
        return program
    specs = jax.eval_shape(lambda *flat: program.as_traced(flat), *program.input_specs())
    closed = jax.make_jaxpr(lambda *flat: flat)(*specs)
    return program.replace(jaxpr=closed, input_permutations=())


def _called(source: Any) -> Any:
    try:
        return source()
    except Exception as error:  # the function is the user's code, and may raise anything
        raise UserCodeError("the function of the calibration data raised") from error


def _flat(item: Any, program: Program, number: int) -> list[Any]:
    if isinstance(item, Mapping) and set(item) == set(program.input_names):
        item = jax.tree_util.tree_unflatten(program.in_tree, [item[name] for name in program.input_names])
    elif not isinstance(item, tuple | list) or _is_one_argument(item, program):
        item = (item,)
    return _fitted(tuple(item), program, f"batch {number} of the calibration data")


def _fitted(arguments: tuple[Any, ...], program: Program, what: str) -> list[Any]:
    """Flat inputs; the error for those that do not fit says what they are."""
    try:
        return program.flatten_arguments(arguments)
    except UsageError as error:
        hint = "calibration data have the shapes and dtypes of the example inputs"
        raise UsageError(f"{what}: {error.message}", hint=hint) from error


def _is_one_argument(item: Any, program: Program) -> bool:
    """Whether a list or tuple is the only argument, and not the arguments."""
    alone = bool(jax.tree_util.tree_structure((item,)) == program.in_tree)
    return alone and bool(jax.tree_util.tree_structure(tuple(item)) != program.in_tree)


# -- files -------------------------------------------------------------------------------------------------------------


def _from_file(path: Path, program: Program) -> tuple[Iterator[list[Any]], int | None]:
    arrays = _split(_load(path), program, path)
    total = min((len(parts) for parts in arrays), default=0)
    if total == 0:
        raise UsageError(f"{str(path)!r} holds fewer samples than one batch of {program.name}")

    def read() -> Iterator[list[Any]]:
        for number, parts in enumerate(zip(*arrays, strict=False), 1):
            yield _fitted(_arguments(parts, program), program, f"batch {number} of {str(path)!r}")

    return read(), total


def _from_directory(folder: Path, program: Program) -> tuple[Iterator[list[Any]], int | None]:
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if not files:
        raise UsageError(f"there are no arrays in {str(folder)!r}", hint="files named *.npz or *.npy are read")

    def read() -> Iterator[list[Any]]:
        for file in files:
            yield from _from_file(file, program)[0]

    return read(), None


def _load(path: Path) -> Any:
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{str(path)!r} is not of a kind that is read", hint="name an .npz or .npy file, or a folder")
    try:
        if path.suffix == ".npy":
            return np.lib.format.open_memmap(path, mode="r")  # read as it is gone through
        with open(path, "rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("it is one array, as files named .npy are")
            return {name: arrays[name] for name in arrays}
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, EOFError) as error:
        raise UsageError(f"{str(path)!r} does not hold plain arrays: {error}") from error


def _split(loaded: Any, program: Program, path: Path) -> list[list[Any]]:
    """For each input, its batches."""
    names = program.input_names
    if not isinstance(loaded, dict):
        loaded = {names[0]: loaded} if len(names) == 1 else {}
    elif len(loaded) == len(names) == 1:
        loaded = {names[0]: next(iter(loaded.values()))}
    missing = [name for name in names if name not in loaded]
    if missing:
        raise UsageError(
            f"{str(path)!r} holds nothing for the input {missing[0]!r}",
            hint=f"save one array for each input: np.savez(path, {', '.join(f'{n}=...' for n in names)})",
        )
    return [_parts(loaded[n], a, n, path) for n, a in zip(names, program.in_avals, strict=True)]


def _parts(array: Any, aval: Any, name: str, path: Path) -> list[Any]:
    """Batches of one input from an array of samples, or of batches."""
    array = array.astype(aval.dtype) if array.dtype.kind == np.dtype(aval.dtype).kind else array
    if array.ndim == len(aval.shape) + 1:
        return list(array)
    if array.ndim != len(aval.shape) or array.ndim == 0:
        raise UsageError(
            f"{name!r} in {str(path)!r} has the shape {array.shape}; the program takes {aval.str_short()}",
            hint="stack samples along the first axis",
        )
    size = aval.shape[0] if isinstance(aval.shape[0], int) else 1
    return [array[start : start + size] for start in range(0, len(array) - size + 1, max(size, 1))]


def _arguments(parts: Iterable[Any], program: Program) -> tuple[Any, ...]:
    arguments: tuple[Any, ...] = jax.tree_util.tree_unflatten(program.in_tree, list(parts))
    return arguments
