"""Whole JAX programs drawn by hypothesis.

    @given(programs())
    def test_something(drawn):
        with drawn.context():
            expected = jax.jit(drawn.fn)(*drawn.args)

A failing example prints the program step by step. Programs are small (some ten operations) and quick to compile. They
hold elementwise operations of mixed dtypes, reductions, shape operations, indexing, products, convolutions, constants,
literals, nested control flow and calls with closures, random keys, unused and repeated inputs and outputs,
zero-size arrays, NaN, infinities, negative zero and the extremes of integers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from program_bodies import write_block
from program_writer import DTYPES, WIDE, Options, Writer, array_of, is_float, is_key, type_text

USUAL_EXAMPLES = 25
"""Number of examples in the default profile of ``conftest.py``."""

SIZES = (2, 3, 1, 2, 3, 4, 1, 2, 3, 0)
"""Sizes of axes; the first is the simplest, and a tenth of the axes is empty."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A drawn program.

    Attributes:
      fn: takes ``*args``, returns a tuple of arrays.
      args: NumPy arrays, Python scalars, and at most one random key.
      description: the program as text, one step a line.
      x64: whether it must be traced and run with 64-bit types; see `context`.
      dynamic: for `xlapass.trace(..., dynamic=)`: None, or one text (or None) per argument, with a symbolic ``batch``.
    """

    fn: Callable[..., tuple[Any, ...]]
    args: tuple[Any, ...]
    description: str
    x64: bool = False
    dynamic: tuple[str | None, ...] | None = None

    def context(self) -> contextlib.AbstractContextManager[None]:
        """In which to trace and run ``fn``."""
        return jax.enable_x64(self.x64)

    def jaxpr(self) -> Any:
        """The closed jaxpr, with symbolic sizes where the program has them."""
        with self.context():
            return jax.make_jaxpr(self.fn)(*self.specs())

    def specs(self) -> tuple[Any, ...]:
        """What to trace ``fn`` at: the arguments, or their types with symbolic sizes."""
        if self.dynamic is None:
            return self.args
        return tuple(jax.export.symbolic_args_specs(self.args, self.dynamic))

    def args_for(self, batch: int) -> tuple[Any, ...]:
        """The arguments with ``batch`` rows where a symbolic size is; rows repeat."""
        if self.dynamic is None:
            return self.args
        pairs = zip(self.args, self.dynamic, strict=True)
        return tuple(a if text is None else np.resize(a, (batch, *a.shape[1:])) for a, text in pairs)

    def __repr__(self) -> str:
        return self.description

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis prints for a failing example."""
        printer.text(self.description)


def examples(count: int) -> int:
    """For ``@settings(max_examples=examples(10))``: ten usually, and as many times more as a sweep wants."""
    return count * settings.default.max_examples // USUAL_EXAMPLES


def assert_identical(results: Sequence[Any], expected: Sequence[Any]) -> None:
    """Two flat lists of arrays agree in type and value; NaN equals NaN, and -0.0 differs from 0.0."""
    assert [type_text(r) for r in results] == [type_text(e) for e in expected]
    for index, (a, b) in enumerate(zip(map(_plain, results), map(_plain, expected), strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"output {index}")
        if a.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(a) & (a == 0), np.signbit(b) & (b == 0), f"output {index}")


def _plain(array: Any) -> np.ndarray[Any, Any]:
    """As an array of a dtype that NumPy knows well."""
    if is_key(array):
        return np.asarray(jax.random.key_data(array))
    return np.asarray(array, dtype=np.float64 if is_float(array) else None)


@st.composite
def programs(
    draw: st.DrawFn,
    *,
    most_steps: int = 8,
    dtypes: tuple[str, ...] = DTYPES,
    control_flow: bool = True,
    random: bool = True,
    effects: bool = False,
    symbolic: bool = False,
    x64: bool = False,
) -> Drawn:
    """Draws a `Drawn` program.

    Args:
      most_steps: number of steps at the top level, at most.
      dtypes: names of the dtypes of inputs, constants and conversions; ``x64`` adds float64 and int64.
      control_flow: whether to draw loops, branches, calls and custom derivatives.
      random: whether to draw random keys and numbers.
      effects: whether to draw callbacks into Python.
      symbolic: whether the first axis of some inputs has an unknown size (``Drawn.dynamic``).
      x64: whether 64-bit types are on.
    """
    dtypes = (*dtypes, *WIDE) if x64 else dtypes
    options = Options(dtypes, control_flow, random, effects, symbolic)
    with jax.enable_x64(x64):
        args, dynamic = _draw_arguments(draw, options)
        unwritten = Drawn(lambda *_: (), args, "", x64, dynamic)
        avals = [jax.eval_shape(lambda x: x, spec) for spec in map(_as_array, unwritten.specs())]
        writer = Writer(draw, options, avals)
        write_block(writer, most_steps)
    outs = [writer.pick(lambda _: True) for _ in range(draw(st.integers(1, 4)))]

    def fn(*values: Any) -> tuple[Any, ...]:
        every = writer.run([jnp.asarray(v) for v in values])
        return tuple(every[i] for i in outs)

    header = ", ".join(f"v{i}:{type_text(aval)}" for i, aval in enumerate(avals))
    returned = ", ".join(f"v{i}" for i in outs)
    values_text = "\n".join(f"  v{i} = {_value_text(arg)}" for i, arg in enumerate(args))
    description = f"program({header}) {writer.lines()} -> {returned}\narguments:\n{values_text}"
    return Drawn(fn, args, description, x64, dynamic)


def _draw_arguments(draw: st.DrawFn, options: Options) -> tuple[tuple[Any, ...], tuple[str | None, ...] | None]:
    shapes = draw(st.lists(st.lists(st.sampled_from(SIZES), max_size=3), min_size=1, max_size=2))
    kinds = draw(st.lists(st.sampled_from(options.dtypes[::-1]), min_size=1, max_size=2))
    args: list[Any] = []
    dynamic: list[str | None] = []
    for index in range(draw(st.integers(1, 3))):
        shape = list(draw(st.sampled_from(shapes)))
        batched = options.symbolic and (index == 0 or draw(st.booleans()))
        shape = [2, *shape[:2]] if batched else shape
        args.append(array_of(draw, shape, draw(st.sampled_from(kinds))))
        dynamic.append("batch, ..." if batched else None)
    if draw(st.integers(0, 3)) == 3:
        args.append(draw(st.sampled_from([2, 0.5, True, -1])))
        dynamic.append(None)
    if options.random and draw(st.integers(0, 3)) == 3:
        args.append(jax.random.key(draw(st.integers(0, 3))))
        dynamic.append(None)
    return tuple(args), tuple(dynamic) if options.symbolic else None


def _as_array(value: Any) -> Any:
    """Types pass; Python scalars become weakly typed arrays."""
    return value if isinstance(value, jax.ShapeDtypeStruct) else jnp.asarray(value)


def _value_text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.tolist()} {value.dtype}"
    return repr(value) if isinstance(value, int | float) else f"key {jax.random.key_data(value).tolist()}"
