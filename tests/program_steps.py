"""The elementary steps of drawn programs: each function adds at most one step to a `Writer`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax
from program_writer import (
    Writer,
    array_of,
    convert,
    is_bool,
    is_float,
    is_integer,
    is_key,
    is_number,
    is_static,
    scalar_from,
    static_number,
    truth_of,
)

FLOAT_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": lax.neg,
    "abs": lax.abs,
    "exp": lax.exp,
    "tanh": lax.tanh,
    "logistic": lax.logistic,
    "sqrt": lax.sqrt,
    "rsqrt": lax.rsqrt,
    "log1p": lax.log1p,
    "sin": lax.sin,
    "erf": lax.erf,
    "floor": lax.floor,
    "round": lax.round,
    "sign": lax.sign,
    "square": lax.square,
    "cube": lambda x: lax.integer_pow(x, 3),
    "power one": lambda x: lax.integer_pow(x, 1),
    "reciprocal": lambda x: lax.integer_pow(x, -1),
    "is_finite": lax.is_finite,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softmax": jax.nn.softmax,
    "nan_to_num": jnp.nan_to_num,
    "stop_gradient": lax.stop_gradient,
    "reduce_precision": lambda x: lax.reduce_precision(x, 5, 7),
}

INTEGER_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": lax.neg,
    "abs": lax.abs,
    "sign": lax.sign,
    "not": lax.bitwise_not,
    "population_count": lax.population_count,
    "clz": lax.clz,
    "square": lax.square,
}

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": lax.add,
    "sub": lax.sub,
    "mul": lax.mul,
    "max": lax.max,
    "min": lax.min,
    "div": lax.div,
    "rem": lax.rem,
}

BITWISE: dict[str, Callable[[Any, Any], Any]] = {
    "and": lax.bitwise_and,
    "or": lax.bitwise_or,
    "xor": lax.bitwise_xor,
}

SHIFTS: dict[str, Callable[[Any, Any], Any]] = {
    "shift_left": lax.shift_left,
    "shift_right_logical": lax.shift_right_logical,
    "shift_right_arithmetic": lax.shift_right_arithmetic,
}

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": lax.eq,
    "ne": lax.ne,
    "lt": lax.lt,
    "le": lax.le,
    "gt": lax.gt,
    "ge": lax.ge,
}

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": jnp.sum,
    "max": jnp.max,
    "min": jnp.min,
    "prod": jnp.prod,
    "mean": jnp.mean,
    "any": jnp.any,
    "all": jnp.all,
}

ALONG_AXIS: dict[str, Callable[..., Any]] = {
    "argmax": jnp.argmax,
    "argmin": jnp.argmin,
    "cumsum": jnp.cumsum,
    "sort": jnp.sort,
    "flip": jnp.flip,
    "cummax": lambda x, axis: lax.cummax(x, axis=axis),
}


def unary(w: Writer) -> None:
    """An elementwise function of one value."""
    i = w.pick(is_number)
    if i is None:
        return
    aval = w.avals[i]
    table = FLOAT_UNARY if is_float(aval) else {"not": lax.bitwise_not} if is_bool(aval) else INTEGER_UNARY
    name = w.choose(*table)
    w.add(f"{name}(v{i})", lambda vs: table[name](vs[i]))


def binary(w: Writer) -> None:
    """An elementwise function of two values of one type, which may be the same value."""
    i = w.pick(is_number)
    if i is None:
        return
    left = w.avals[i]
    j = w.pick(lambda a: a.shape == left.shape and a.dtype == left.dtype)
    tables = [COMPARISONS, BITWISE] if is_bool(left) else [ARITHMETIC, COMPARISONS]
    tables += [BITWISE, SHIFTS] if is_integer(left) else []
    table = w.choose(*tables)
    name = w.choose(*table)
    w.add(f"{name}(v{i}, v{j})", lambda vs: table[name](vs[i], vs[j]))


def with_literal(w: Writer) -> None:
    """An elementwise function of a value and a Python scalar, on either side; neutral elements are likely."""
    i = w.pick(lambda a: is_number(a) and not is_bool(a))
    if i is None:
        return
    name = w.choose(*ARITHMETIC)
    number = w.choose(0, 1, 2, 3) if is_integer(w.avals[i]) else w.choose(0.0, 1.0, -0.0, 2.0, 0.5, -1.0)
    swapped = w.choose(False, True)
    operands = f"{number}, v{i}" if swapped else f"v{i}, {number}"

    def run(vs: Any) -> Any:
        literal = np.asarray(number, vs[i].dtype)[()]
        return ARITHMETIC[name](literal, vs[i]) if swapped else ARITHMETIC[name](vs[i], literal)

    w.add(f"{name}({operands})", run)


def promote(w: Writer) -> None:
    """NumPy-style arithmetic of mixed dtypes with broadcasting."""
    i, j = w.pick(is_number), w.pick(is_number)
    name = w.choose("add", "multiply", "subtract", "maximum", "logaddexp", "floor_divide")
    if i is not None and j is not None:
        w.add(f"jnp.{name}(v{i}, v{j})", lambda vs: getattr(jnp, name)(vs[i], vs[j]))


def convert_dtype(w: Writer) -> None:
    """A conversion, often to the dtype that is there already."""
    i = w.pick(is_number)
    dtype = w.choose(*w.options.dtypes)
    if i is not None:
        w.add(f"convert(v{i}, {dtype})", lambda vs: convert(vs[i], jnp.dtype(dtype)))


def select(w: Writer) -> None:
    """A choice between two values, or between a value and itself."""
    i, k = w.pick(is_number), w.pick(is_number)
    if i is None or k is None:
        return
    j = w.pick(lambda a: a.shape == w.avals[i].shape and a.dtype == w.avals[i].dtype)
    w.add(f"where(truth(v{k}), v{i}, v{j})", lambda vs: jnp.where(truth_of(vs[k]), vs[i], vs[j]))


def clamp(w: Writer) -> None:
    """Limits by scalars."""
    i = w.pick(is_number)
    if i is not None:
        w.add(f"clip(v{i}, 0, 1)", lambda vs: jnp.clip(vs[i], 0, 1))


def reduce(w: Writer) -> None:
    """A reduction over some axes, or none."""
    i = w.pick(is_number)
    if i is None:
        return
    name = w.choose(*REDUCTIONS)
    axes = tuple(a for a in range(len(w.avals[i].shape)) if w.choose(True, False))
    keep = w.choose(False, True)
    w.add(f"{name}(v{i}, {axes}, keepdims={keep})", lambda vs: REDUCTIONS[name](vs[i], axis=axes, keepdims=keep))


def along_axis(w: Writer) -> None:
    """A scan, sort or search along one axis."""
    i = w.pick(lambda a: is_number(a) and len(a.shape) > 0)
    if i is None:
        return
    name, axis = w.choose(*ALONG_AXIS), w.integer(0, len(w.avals[i].shape) - 1)
    w.add(f"{name}(v{i}, axis={axis})", lambda vs: ALONG_AXIS[name](vs[i], axis=axis))


def transpose(w: Writer) -> None:
    """A transposition, perhaps the identity."""
    i = w.pick(is_number)
    if i is not None:
        order = tuple(w.draw(st.permutations(range(len(w.avals[i].shape)))))
        w.add(f"transpose(v{i}, {order})", lambda vs: lax.transpose(vs[i], order))


def reshape(w: Writer) -> None:
    """A reshape: flat, with an axis of size one, to another factorization, or to what it is."""
    i = w.pick(is_number)
    if i is None:
        return
    how = w.choose("flat", "same", "expand", "squeeze", "reversed")
    functions: dict[str, Callable[[Any], Any]] = {
        "flat": jnp.ravel,
        "same": lambda x: lax.reshape(x, x.shape),
        "expand": lambda x: lax.expand_dims(x, (0,)),
        "squeeze": jnp.squeeze,
        "reversed": lambda x: lax.reshape(x, x.shape[::-1]),
    }
    w.add(f"reshape(v{i}, {how})", lambda vs: functions[how](vs[i]))


def broadcast(w: Writer) -> None:
    """A broadcast along a new leading axis, or to the shape of another value."""
    i, j = w.pick(lambda a: is_number(a) and len(a.shape) < 3), w.pick(is_number)
    if i is None or j is None:
        return
    if w.choose(True, False):
        size = w.integer(0, 3)
        w.add(f"broadcast(v{i}, ({size},))", lambda vs: lax.broadcast(vs[i], (size,)))
    else:
        w.add(f"broadcast_to(v{i}, shape of v{j})", lambda vs: jnp.broadcast_to(vs[i], vs[j].shape))


def slice_(w: Writer) -> None:
    """A static slice with strides; it may take everything, or nothing."""
    i = w.pick(lambda a: static_number(a) and len(a.shape) > 0)
    if i is None:
        return
    shape = w.avals[i].shape
    starts = tuple(w.integer(0, min(1, d)) for d in shape)
    limits = tuple(w.choose(d, max(s, d - 1)) for s, d in zip(starts, shape, strict=True))
    strides = tuple(w.integer(1, 2) for _ in shape)
    w.add(f"slice(v{i}, {starts}, {limits}, {strides})", lambda vs: lax.slice(vs[i], starts, limits, strides))


def pad(w: Writer) -> None:
    """Padding: none, negative, interior."""
    i = w.pick(static_number)
    if i is None:
        return
    widths = [(w.integer(-1, 1), w.integer(0, 1), w.integer(0, 1)) for _ in w.avals[i].shape]
    value = w.choose(0, 1)
    w.add(f"pad(v{i}, {value}, {widths})", lambda vs: lax.pad(vs[i], jnp.asarray(value, vs[i].dtype), widths))


def concatenate(w: Writer) -> None:
    """One to three operands, which may repeat."""
    i = w.pick(lambda a: is_number(a) and len(a.shape) > 0)
    if i is None:
        return
    first = w.avals[i]
    parts = [i]
    for _ in range(w.integer(0, 2)):
        j = w.pick(lambda a: a.shape == first.shape and a.dtype == first.dtype)
        parts.append(i if j is None else j)
    axis = w.integer(0, len(first.shape) - 1)
    names = ", ".join(f"v{p}" for p in parts)
    w.add(f"concatenate([{names}], {axis})", lambda vs: lax.concatenate([vs[p] for p in parts], axis))


def split(w: Writer) -> None:
    """An operation of several results, some of which usually stay unused."""
    i = w.pick(lambda a: static_number(a) and len(a.shape) > 0 and a.shape[0] > 0)
    if i is not None:
        sizes = (1, w.avals[i].shape[0] - 1)
        w.add(f"split(v{i}, {sizes})", lambda vs: lax.split(vs[i], sizes))


def gather(w: Writer) -> None:
    """Rows by constant or computed indices."""
    i = w.pick(lambda a: static_number(a) and len(a.shape) > 0 and a.shape[0] > 0)
    if i is None:
        return
    j = w.pick(lambda a: is_integer(a) and is_static(a)) if w.choose(False, True) else None
    constant = np.array([0, -1, 0])
    indices = f"v{j}" if j is not None else "[0, -1, 0]"
    mode = w.choose("fill", "clip")
    w.add(
        f"take(v{i}, {indices}, mode={mode})",
        lambda vs: jnp.take(vs[i], constant if j is None else vs[j], axis=0, mode=mode),
    )


def scatter(w: Writer) -> None:
    """An indexed update of the first row."""
    i = w.pick(lambda a: is_number(a) and len(a.shape) > 0)
    k = w.pick(is_number)
    if i is None or k is None:
        return
    how = w.choose("set", "add", "max")
    w.add(
        f"v{i}.at[0].{how}(scalar(v{k}))",
        lambda vs: getattr(vs[i].at[0], how)(convert(scalar_from(vs[k]), vs[i].dtype)),
    )


def dynamic_slice(w: Writer) -> None:
    """A slice of size one at a computed start."""
    i, j = w.pick(lambda a: is_number(a) and len(a.shape) > 0), w.pick(is_integer)
    if i is not None and j is not None:
        w.add(
            f"dynamic_slice(v{i}, scalar(v{j}))",
            lambda vs: lax.dynamic_slice_in_dim(vs[i], convert(scalar_from(vs[j]), jnp.int32), 1, axis=0),
        )


def top_k(w: Writer) -> None:
    """The largest element with its index."""
    i = w.pick(lambda a: static_number(a) and len(a.shape) > 0 and a.shape[-1] > 0 and not is_bool(a))
    if i is not None:
        w.add(f"top_k(v{i}, 1)", lambda vs: lax.top_k(vs[i], 1))


def dot(w: Writer) -> None:
    """A matrix product of what fits, or of a value and its transpose."""
    i = w.pick(lambda a: is_number(a) and not is_bool(a) and len(a.shape) in (1, 2, 3))
    if i is None:
        return
    left = w.avals[i]
    j = w.pick(
        lambda a: (
            a.dtype == left.dtype and len(a.shape) in (1, 2) and a.shape[max(0, len(a.shape) - 2)] == left.shape[-1]
        )
    )
    if j is None:
        w.add(f"matmul(v{i}, transposed v{i})", lambda vs: jnp.matmul(vs[i], jnp.matrix_transpose(vs[i])))
    else:
        w.add(f"matmul(v{i}, v{j})", lambda vs: jnp.matmul(vs[i], vs[j]))


def convolution(w: Writer) -> None:
    """A one-dimensional convolution with a constant kernel, its input made from a value."""
    i = w.pick(lambda a: static_number(a) and is_float(a) and len(a.shape) == 3)
    if i is None:
        return
    channels = w.avals[i].shape[1]
    kernel = array_of(w.draw, (2, channels, 2), str(w.avals[i].dtype))
    padding, stride = w.choose("SAME", "VALID"), w.integer(1, 2)
    w.add(
        f"conv(v{i}, constant{kernel.shape}, {padding}, {stride})",
        lambda vs: lax.conv_general_dilated(vs[i], kernel, (stride,), padding),
    )


def window(w: Writer) -> None:
    """A pooling window."""
    i = w.pick(lambda a: is_number(a) and is_float(a) and len(a.shape) > 0)
    if i is None:
        return
    size = (1,) * (len(w.avals[i].shape) - 1) + (2,)
    w.add(
        f"reduce_window(v{i}, max, {size})",
        lambda vs: lax.reduce_window(vs[i], jnp.array(-jnp.inf, vs[i].dtype), lax.max, size, size, "SAME"),
    )


def constant(w: Writer) -> None:
    """A constant of the shape of a value: closed over (as NumPy or JAX array), filled, or counted."""
    i = w.pick(is_number)
    if i is None:
        return
    aval = w.avals[i]
    how = w.choose("array", "full", "arange", "literal")
    if how == "array" and is_static(aval):
        array = array_of(w.draw, aval.shape, str(aval.dtype))
        array = jnp.asarray(array) if w.choose(True, False) else array
        w.add(f"constant({array.tolist()}, {aval.dtype})", lambda vs: jnp.asarray(array))
    elif how == "full":
        value = w.choose(0, 1)
        w.add(f"full_like(v{i}, {value})", lambda vs: jnp.full_like(vs[i], value))
    elif how == "arange" and aval.shape:
        w.add(f"arange(rows of v{i})", lambda vs: jnp.arange(vs[i].shape[0]))
    else:
        scalar = w.choose(1.5, 2, True)
        w.add(f"{scalar} as a weak scalar", lambda vs: jnp.asarray(scalar))


def random_numbers(w: Writer) -> None:
    """Numbers, or new keys, from a random key."""
    i = w.pick(lambda a: is_key(a) and a.shape == ())
    if i is None or not w.options.random:
        return
    how = w.choose("uniform", "bernoulli", "split", "fold_in")
    functions: dict[str, Callable[[Any], Any]] = {
        "uniform": functools.partial(jax.random.uniform, shape=(2,)),
        "bernoulli": functools.partial(jax.random.bernoulli, shape=(2,)),
        "split": lambda key: tuple(jax.random.split(key)),
        "fold_in": lambda key: jax.random.fold_in(key, 7),
    }
    w.add(f"random.{how}(v{i})", lambda vs: functions[how](vs[i]))


def effect(w: Writer) -> None:
    """A callback into Python that does nothing, ordered or not."""
    i = w.pick(is_number)
    if i is None or not w.options.effects:
        return
    ordered = w.choose(False, True)
    callback = jax.debug.callback

    def run(vs: Any) -> list[Any]:
        callback(_ignore, vs[i], ordered=ordered)
        return []

    w.add(f"callback(v{i}, ordered={ordered})", run)


def _ignore(_: Any) -> None:
    pass


ELEMENTARY: tuple[Callable[[Writer], None], ...] = (
    unary, binary, with_literal, promote, convert_dtype, select, clamp, reduce, along_axis, transpose, reshape,
    broadcast, slice_, pad, concatenate, split, gather, scatter, dynamic_slice, top_k, dot, convolution, window,
    constant, random_numbers, effect,
)  # fmt: skip
