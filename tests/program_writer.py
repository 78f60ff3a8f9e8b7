"""What the steps of drawn programs are written with; see `programs`, the public part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

FLOATS = ("float16", "bfloat16", "float32")
INTEGERS = ("int8", "int16", "int32", "uint8", "uint32")
WIDE = ("float64", "int64")
DTYPES = ("bool", *INTEGERS, *FLOATS)

DOES_NOT_FIT = (
    TypeError,
    ValueError,
    NotImplementedError,
    IndexError,
    ZeroDivisionError,
    jax.errors.InconclusiveDimensionOperation,
    jax.errors.JAXTypeError,
)
"""What JAX raises when a drawn step does not suit its operands: an argmax of nothing, an undecidable size."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What programs may hold; see `programs.programs`."""

    dtypes: tuple[str, ...] = DTYPES
    control_flow: bool = True
    random: bool = True
    effects: bool = False
    symbolic: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of a program: ``run`` takes all values so far and returns the new ones."""

    text: str
    run: Callable[[Sequence[Any]], Sequence[Any]]


class Writer:
    """Draws the steps of one block, knowing the type of every value so far."""

    def __init__(self, draw: Any, options: Options, avals: Sequence[Any], depth: int = 0) -> None:
        self.draw = draw
        self.options = options
        self.avals = list(avals)
        self.depth = depth
        self.steps: list[Step] = []

    def add(self, text: str, run: Callable[[Sequence[Any]], Any]) -> bool:
        """Appends a step unless JAX finds that it does not fit; ``run`` may return one array or several."""

        def run_all(values: Sequence[Any]) -> list[Any]:
            result = run(values)
            return list(result) if isinstance(result, tuple | list) else [result]

        try:
            results = jax.eval_shape(run_all, self.avals)
        except DOES_NOT_FIT:
            return False
        first = len(self.avals)
        names = ", ".join(f"v{first + i}:{type_text(aval)}" for i, aval in enumerate(results))
        self.steps.append(Step(f"{names} = {text}" if names else text, run_all))
        self.avals.extend(results)
        return True

    def pick(self, accepts: Callable[[Any], bool]) -> int | None:
        """A value whose type is accepted, or None; late ones are likelier, so that steps build on each other."""
        fitting = [i for i, aval in enumerate(self.avals) if accepts(aval)][::-1]
        return self.draw(st.sampled_from([*fitting[:4], *fitting])) if fitting else None

    def choose(self, *choices: Any) -> Any:
        """One of the choices; the first is the simplest."""
        return self.draw(st.sampled_from(choices))

    def integer(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return self.draw(st.integers(low, high))

    def child(self, params: Sequence[Any]) -> Writer:
        """A block inside this one: it sees every value so far, then its own parameters."""
        return Writer(self.draw, self.options, [*self.avals, *params], self.depth + 1)

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Runs the block on its first values; returns all values."""
        values = list(values)
        for step in self.steps:
            values.extend(step.run(values))
        return values

    def lines(self) -> str:
        """The block's steps in braces, indented."""
        text = "\n".join(step.text for step in self.steps)
        return "{\n" + "".join(f"  {line}\n" for line in text.splitlines()) + "}"


def type_text(aval: Any) -> str:
    """``float32[2,3]``, with ``~`` in front when weakly typed."""
    weak = "~" if getattr(aval, "weak_type", False) else ""
    return f"{weak}{aval.dtype}[{','.join(map(str, aval.shape))}]"


def is_key(aval: Any) -> bool:
    """Whether the value is a random key."""
    return bool(jnp.issubdtype(aval.dtype, jax.dtypes.prng_key))


def is_number(aval: Any) -> bool:
    """Anything but a random key."""
    return not is_key(aval)


def is_float(aval: Any) -> bool:
    """Whether the value is of a float type."""
    return bool(jnp.issubdtype(aval.dtype, jnp.floating))


def is_integer(aval: Any) -> bool:
    """Whether the value is of an integer type."""
    return bool(jnp.issubdtype(aval.dtype, jnp.integer))


def is_bool(aval: Any) -> bool:
    """Whether the value is boolean."""
    return bool(aval.dtype == jnp.bool_)


def is_static(aval: Any) -> bool:
    """Whether every size is known."""
    return all(isinstance(d, int) for d in aval.shape)


def static_number(aval: Any) -> bool:
    """A number or an array of them of known sizes."""
    return is_number(aval) and is_static(aval)


def convert(value: Any, dtype: Any) -> Any:
    """Converts; from float to integer only what every implementation converts alike."""
    if is_float(value) and jnp.issubdtype(dtype, jnp.integer):
        value = jnp.where(jnp.isnan(value), jnp.zeros_like(value), value)
        value = jnp.clip(value, 0 if jnp.issubdtype(dtype, jnp.unsignedinteger) else -9, 9)
    return jax.lax.convert_element_type(value, dtype)


def scalar_from(value: Any) -> Any:
    """A scalar that depends on ``value``; zero when it is empty."""
    return jnp.sum(jnp.ravel(value)[:1], dtype=value.dtype if value.dtype != jnp.bool_ else jnp.int32)


def truth_of(value: Any) -> Any:
    """A boolean scalar that depends on ``value``."""
    return scalar_from(value) > 0


def fitted(value: Any, like: Any) -> Any:
    """``value`` made to have shape and dtype of ``like``."""
    if is_key(value) or is_key(like):
        return value if value.dtype == like.dtype and value.shape == like.shape else like
    if value.shape != like.shape:
        value = jnp.broadcast_to(scalar_from(value), like.shape)
    return convert(value, like.dtype)


def array_of(draw: Any, shape: Sequence[int], dtype: str) -> np.ndarray[Any, Any]:
    """An array of small numbers, or of extreme ones."""
    flavour = draw(st.sampled_from(["small", "wide", "special"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return np.asarray(_numbers(rng, flavour, shape, jnp.dtype(dtype)), dtype=dtype)


def _numbers(rng: np.random.Generator, flavour: str, shape: Sequence[int], kind: Any) -> Any:
    if kind == np.bool_:
        return rng.random(shape) < 0.5
    if flavour == "special":
        return rng.choice(np.array(_special(kind), dtype=kind), size=shape)
    if jnp.issubdtype(kind, jnp.floating):
        return rng.integers(-6, 7, size=shape) * 0.5 if flavour == "small" else rng.normal(size=shape) * 100
    info = jnp.iinfo(kind)
    low, high = (max(info.min, -3), 3) if flavour == "small" else (info.min, info.max)
    return rng.integers(low, high, size=shape, dtype=kind, endpoint=True)


def _special(kind: Any) -> list[Any]:
    """The values at which identities break. No subnormals: XLA may flush them or not, as it likes."""
    if jnp.issubdtype(kind, jnp.floating):
        info = jnp.finfo(kind)
        return [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, float(info.max), float(info.min)]
    info = jnp.iinfo(kind)
    return [info.min, info.max, 0, 1, 2]
