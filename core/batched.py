"""`BatchedExecutable`: a program for batches of any size, compiled for a few sizes only."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .backend import Executable
from .batching import BatchAxes, batch_axes, batch_symbol
from .errors import UsageError
from .program import Program
from .recompilation import SignatureWatch
from .specialize import symbols

DEFAULT_BUCKETS = (1, 2, 4, 8, 16, 32)

IN_FLIGHT = 2
"""Batches that `BatchedExecutable.map` has under way: one is computed while the next one is assembled."""

FlatFunction = Callable[[Sequence[Any]], list[Any]]


class BatchedExecutable(Executable):
    """Runs batches of any size through executables for a few sizes, the buckets.

    A batch is padded to the next bucket, and one that is larger than the largest is run in parts. That gives what the
    program gives only if each row of a batch is computed by itself, which is made sure of beforehand.

    Args:
      program: with a symbolic dimension for the batch, as it was traced.
      compile_at: from a size for each symbol to what runs the program at these sizes, on flat inputs.
      device: where it runs.
      buckets: sizes of batches to compile for.
      batch: name of the symbolic dimension; by default see `batch_symbol`.

    Raises:
      UsageError: a bucket is no positive number, or the rows of a batch may depend on each other.
    """

    def __init__(
        self,
        program: Program,
        compile_at: Callable[[Mapping[str, int]], FlatFunction],
        device: jax.Device,
        *,
        buckets: Sequence[int] = DEFAULT_BUCKETS,
        batch: str | None = None,
    ) -> None:
        if not buckets or any(isinstance(b, bool) or not isinstance(b, int) or b < 1 for b in buckets):
            raise UsageError(f"buckets are positive sizes, and not {buckets!r}", hint="write buckets=(1, 8, 32)")
        self.program = program
        self.buckets = tuple(sorted(set(buckets)))
        self.batch = batch_symbol(program, batch)
        self.axes: BatchAxes = batch_axes(program, self.batch)
        self._places = _places_of_symbols(program)
        self._compile_at = compile_at
        self._device = device
        self._compiled: dict[tuple[tuple[str, int], ...], FlatFunction] = {}
        self._lock = threading.Lock()
        self._watch = SignatureWatch(
            f"the executable of {program.name}", f"only the dimension {self.batch!r} has buckets"
        )

    def __call__(self, *args: Any) -> Any:
        """Runs a batch of any size, none included; arguments and result have the structure that was traced."""
        flat = self.program.flatten_arguments(args)
        sizes = self._sizes(flat)
        count, largest = sizes[self.batch], self.buckets[-1]
        parts = [
            self._run(flat, start, min(start + largest, count), sizes) for start in range(0, max(count, 1), largest)
        ]
        outputs = (
            parts[0]
            if len(parts) == 1
            else [self._joined(i, column) for i, column in enumerate(zip(*parts, strict=True))]
        )
        return jax.tree_util.tree_unflatten(self.program.out_tree, outputs)

    def map(self, samples: Iterable[Any]) -> Iterator[Any]:
        """Runs single samples in batches as large as the largest bucket; yields one result for each, in order.

        Batches are assembled in host memory that is used again, moved to the device in one transfer, and assembled
        while the batch before is computed.

        Args:
          samples: for a program of one argument, that argument without the axis of the batch; for one of several,
            tuples of them.

        Yields:
          Results without the axis of the batch, as NumPy arrays of their own.

        Raises:
          UsageError: an input has no batch, or a sample has another structure or shape than the first.
        """
        self._require_batch_everywhere()
        buffers: collections.deque[dict[Any, list[Any]]] = collections.deque({} for _ in range(IN_FLIGHT + 1))
        under_way: collections.deque[tuple[int, list[Any]]] = collections.deque()
        remaining = iter(samples)
        while chunk := [self._flat_sample(sample) for sample in itertools.islice(remaining, self.buckets[-1])]:
            under_way.append((len(chunk), self._start(chunk, buffers[0])))
            buffers.rotate()
            if len(under_way) > IN_FLIGHT - 1:
                yield from self._results(*under_way.popleft())
        while under_way:
            yield from self._results(*under_way.popleft())

    def warm_up(self, **sizes: int) -> None:
        """Compiles for every bucket now, and not when a batch first needs it.

        Args:
          **sizes: of the other symbolic dimensions, if there are any.
        """
        others = set(symbols(self.program)) - {self.batch}
        if set(sizes) != others:
            raise UsageError(f"{self.program.name} has the other dimensions {sorted(others)}, and not {sorted(sizes)}")
        for bucket in self.buckets:
            self._function(sizes | {self.batch: bucket})

    # -- batches -------------------------------------------------------------------------------------------------------

    def _sizes(self, flat: Sequence[Any]) -> dict[str, int]:
        """The size of each symbol in the inputs; raises `UsageError` where two inputs disagree."""
        sizes: dict[str, int] = {}
        for symbol, index, axis in self._places:
            size = np.shape(flat[index])[axis]
            if sizes.setdefault(symbol, size) != size:
                first = next(i for name, i, _ in self._places if name == symbol)
                raise UsageError(
                    f"the dimension {symbol!r} of {self.program.name} is {sizes[symbol]} in input "
                    f"{self.program.input_names[first]!r} and {size} in input {self.program.input_names[index]!r}"
                )
        return sizes

    def _bucket(self, count: int) -> int:
        return next(bucket for bucket in self.buckets if bucket >= count)

    def _function(self, sizes: Mapping[str, int]) -> FlatFunction:
        key = tuple(sorted(sizes.items()))
        with self._lock:  # a server's threads must not compile the same bucket twice
            if key not in self._compiled:
                others = {f"dimension {name}": size for name, size in key if name != self.batch}
                if others:
                    self._watch.saw(others)
                self._compiled[key] = self._compile_at(sizes)
            return self._compiled[key]

    def _run(self, flat: Sequence[Any], start: int, stop: int, sizes: Mapping[str, int]) -> list[Any]:
        """The outputs of the rows from ``start`` to ``stop``, without padding."""
        bucket = self._bucket(stop - start)
        whole = start == 0 and stop == sizes[self.batch] == bucket
        inputs = flat if whole else self._padded(flat, start, stop, bucket, sizes)
        outputs = self._function({**sizes, self.batch: bucket})(inputs)
        return outputs if stop - start == bucket else [self._cut(i, out, stop - start) for i, out in enumerate(outputs)]

    def _padded(self, flat: Sequence[Any], start: int, stop: int, bucket: int, sizes: Mapping[str, int]) -> list[Any]:
        """Rows of the inputs, and copies of the last one up to the bucket, moved to the device at once."""
        rows = np.minimum(np.arange(start, start + bucket), max(stop - 1, 0))
        is_last = not any(self.program.donated) or stop == sizes[self.batch]
        arrays = []
        for value, axis, aval in zip(flat, self.axes.inputs, self.program.in_avals, strict=True):
            if axis is None:
                arrays.append(value if is_last else _copied(value))
            elif stop == 0:
                shape = tuple(bucket if i == axis else size for i, size in enumerate(np.shape(value)))
                arrays.append(_zeros(shape, aval.dtype))
            elif _is_key(aval):
                arrays.append(value.take(rows, axis))
            else:
                arrays.append(np.take(np.asarray(value), rows, axis))
        return self._moved(arrays)

    def _moved(self, arrays: Sequence[Any]) -> list[Any]:
        """The arrays that have rows on the device, in one transfer; the others as they are."""
        with jax.enable_x64(self.program.x64):
            pairs = zip(arrays, self.axes.inputs, strict=True)
            moved = iter(jax.device_put([array for array, axis in pairs if axis is not None], self._device))
        return [array if axis is None else next(moved) for array, axis in zip(arrays, self.axes.inputs, strict=True)]

    def _on_device(self, array: np.ndarray[Any, Any]) -> jax.Array:
        with jax.enable_x64(self.program.x64):
            moved: jax.Array = jax.device_put(array, self._device)
            return moved

    def _cut(self, index: int, output: Any, count: int) -> Any:
        """The first rows of an output. On the CPU this is done by NumPy: JAX would compile it for each count."""
        axis = self.axes.outputs[index]
        if axis is None:
            return output
        if _is_key(output) or self._device.platform != "cpu":
            return jax.lax.slice_in_dim(output, 0, count, axis=axis)
        view = np.asarray(output)[(slice(None),) * axis + (slice(0, count),)]
        return self._on_device(view.copy())

    def _joined(self, index: int, parts: Sequence[Any]) -> Any:
        axis = self.axes.outputs[index]
        if axis is None:
            return parts[0]
        if _is_key(parts[0]) or self._device.platform != "cpu":
            return jax.numpy.concatenate(parts, axis)
        return self._on_device(np.concatenate([np.asarray(part) for part in parts], axis))

    # -- samples -------------------------------------------------------------------------------------------------------

    def _require_batch_everywhere(self) -> None:
        for axis, name, aval in zip(self.axes.inputs, self.program.input_names, self.program.in_avals, strict=True):
            if axis is None:
                raise UsageError(
                    f"input {name!r} of {self.program.name} has no batch, so it is no part of a sample",
                    hint="bind it with functools.partial before compiling",
                )
            if _is_key(aval):
                raise UsageError(f"input {name!r} of {self.program.name} is a random key, which map does not assemble")

    def _flat_sample(self, sample: Any) -> list[Any]:
        """The leaves of one sample."""
        count = len(jax.tree_util.treedef_children(self.program.in_tree))
        flat, tree = jax.tree_util.tree_flatten((sample,) if count == 1 else tuple(sample))
        if tree != self.program.in_tree:
            raise UsageError(f"a sample for {self.program.name} has the structure {self.program.in_tree}, not {tree}")
        return flat

    def _start(self, chunk: Sequence[Sequence[Any]], buffers: dict[Any, list[Any]]) -> list[Any]:
        """Assembles a batch and starts its computation; the buffers' last batch has been computed."""
        bucket = self._bucket(len(chunk))
        shapes = [
            (*np.shape(leaf)[:axis], bucket, *np.shape(leaf)[axis:])
            for leaf, axis in zip(chunk[0], self.axes.inputs, strict=True)
            if axis is not None
        ]
        dtypes = [aval.dtype for aval in self.program.in_avals]
        if tuple(shapes) not in buffers:
            buffers[tuple(shapes)] = [np.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        batch = buffers[tuple(shapes)]
        for index, (array, axis) in enumerate(zip(batch, self.axes.inputs, strict=True)):
            rows = np.moveaxis(array, axis or 0, 0)
            for position in range(bucket):
                leaf = np.asarray(chunk[min(position, len(chunk) - 1)][index])
                if leaf.shape != rows.shape[1:] or not np.can_cast(leaf.dtype, array.dtype, "same_kind"):
                    raise UsageError(
                        f"input {self.program.input_names[index]!r} of a sample is {leaf.dtype}{list(leaf.shape)}, "
                        f"where {array.dtype}{list(rows.shape[1:])} is expected",
                        hint="samples of one call have the same shape",
                    )
                rows[position] = leaf
        flat = self.program.flatten_arguments(jax.tree_util.tree_unflatten(self.program.in_tree, batch))
        return self._function({**self._sizes(flat), self.batch: bucket})(self._moved(flat))

    def _results(self, count: int, outputs: Sequence[Any]) -> Iterator[Any]:
        """Waits for a batch, and copies its rows: its buffers may be used again when the first one is out."""
        pairs = zip(outputs, self.axes.outputs, strict=True)
        rows = [np.array(out) if axis is None else np.moveaxis(np.array(out), axis, 0) for out, axis in pairs]
        for position in range(count):
            leaves = [out if axis is None else out[position] for out, axis in zip(rows, self.axes.outputs, strict=True)]
            yield jax.tree_util.tree_unflatten(self.program.out_tree, leaves)


def _places_of_symbols(program: Program) -> list[tuple[str, int, int]]:
    """``(symbol, input, axis)`` where an input has an axis that is just a symbol; every symbol must have one."""
    known = symbols(program)
    places = [
        (str(size), index, axis)
        for index, aval in enumerate(program.in_avals)
        for axis, size in enumerate(aval.shape)
        if not isinstance(size, int) and str(size) in known
    ]
    missing = set(known) - {symbol for symbol, _, _ in places}
    if missing:
        raise UsageError(f"no input of {program.name} has an axis that is just {min(missing)!r}")
    return places


def _copied(value: Any) -> Any:
    """A copy that may be donated, where a later part of the batch needs the value again."""
    return value.copy() if isinstance(value, jax.Array) else value


def _is_key(value: Any) -> bool:
    return bool(jax.numpy.issubdtype(value.dtype, jax.dtypes.extended))


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    if jax.numpy.issubdtype(dtype, jax.dtypes.extended):
        return jax.random.split(jax.random.key(0, impl=str(dtype._impl.name)), shape)
    return np.zeros(shape, dtype)
