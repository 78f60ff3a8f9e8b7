"""Counter-based random numbers as integer arithmetic: the same values as JAX for the same key."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
from jax import lax

from .. import dims
from ..context import Context
from ..dims import Shape
from ..operand import Operand, constant, inner_shape, is_key, stored_array
from ..registry import Refusal, lowers
from .shape import typed

_T = ir.DataType

#: Rotation distances and key-schedule parity of Threefry-2x32 (Salmon et al., SC 2011).
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_LOW_WORD = np.uint64(0xFFFFFFFF)


@lowers("threefry2x32")
def threefry2x32(ctx: Context, eqn: Any, *words: Operand) -> list[Operand]:
    """Two words of key and two arrays of counters to two arrays of random words."""
    wide = [ctx.build.cast(ctx.value(w), _T.UINT64) for w in words]
    held = dims.broadcast(*(w.held for w in words))
    first, second = _threefry(ctx, *wide)
    return [
        ctx.result(ctx.build.cast(v, _T.UINT32), aval, held) for v, aval in zip((first, second), eqn.avals, strict=True)
    ]


def _threefry(ctx: Context, k0: ir.Value, k1: ir.Value, x0: ir.Value, x1: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Twenty rounds on uint64 whose low words count; high words are cleared only where they would shift in."""
    schedule = [k0, k1, ctx.op("BitwiseXor", ctx.op("BitwiseXor", k0, k1), ctx.const(np.uint64(_PARITY)))]
    x0, x1 = ctx.op("Add", x0, k0), ctx.op("Add", x1, k1)
    twice, mask = ctx.const(np.uint64((1 << 32) + 1)), ctx.const(_LOW_WORD)
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = ctx.op("Add", x0, x1)
            # The word written twice, side by side: a plain shift then rotates it.
            doubled = ctx.op("Mul", ctx.op("BitwiseAnd", x1, mask), twice)
            turned = ctx.op("BitShift", doubled, ctx.const(np.uint64(32 - distance)), direction="RIGHT")
            x1 = ctx.op("BitwiseXor", turned, x0)
        x0 = ctx.op("Add", x0, schedule[(group + 1) % 3])
        step = ctx.op("Add", schedule[(group + 2) % 3], ctx.const(np.uint64(group + 1)))
        x1 = ctx.op("Add", x1, step)
    return ctx.op("BitwiseAnd", x0, mask), ctx.op("BitwiseAnd", x1, mask)


def _implementation(dtype: Any) -> Any:
    """JAX's functions of a kind of keys that is not threefry; None for threefry, which is written out here."""
    implementation = getattr(dtype, "_impl", None)
    name = str(getattr(implementation, "name", dtype))
    if "fry" in str(dtype) or "threefry" in name:
        return None
    if implementation is None or name not in ("rbg", "unsafe_rbg"):
        raise Refusal(f"random keys of the kind {dtype}; use threefry2x32 (the default), rbg or unsafe_rbg")
    return implementation


def _mapped(function: Any, times: int) -> Any:
    for _ in range(times):
        function = jax.vmap(function)
    return function


def _bind_threefry(k0: Any, k1: Any, x0: Any, x1: Any) -> tuple[Any, Any]:
    from jax.extend.core.primitives import threefry2x32_p

    shape = jnp.broadcast_shapes(jnp.shape(k0), jnp.shape(x0))
    k0, k1, x0, x1 = (jnp.broadcast_to(v, shape) for v in (k0, k1, x0, x1))
    first, second = threefry2x32_p.bind(k0, k1, x0, x1)
    return first, second


def _counters(shape: Shape) -> tuple[Any, Any]:
    """The position of every element, as the high and the low word of 64 bits."""
    if not dims.is_static(shape):
        with jax.enable_x64(True):
            low, high = _parted(lax.reshape(lax.iota(np.uint64, dims.size(shape)), shape))
            return high.astype(np.uint32), low.astype(np.uint32)
    count = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    return np.uint32(count >> np.uint64(32)), np.uint32(count & _LOW_WORD)


def _partitionable() -> bool:
    return bool(jax.config.jax_threefry_partitionable)  # type: ignore[attr-defined]


def _words(ctx: Context, key: Operand) -> Operand:
    """A key array as the uint32 words that store it."""
    inner = inner_shape(key.dtype)
    if key.const is not None:
        return constant(stored_array(key.const))
    key = ctx.padded(key)
    return Operand((*key.shape, *inner), np.dtype(np.uint32), (*key.held, *inner), key.value)


def _key_result(ctx: Context, eqn: Any, words: Operand) -> Operand:
    return ctx.result(ctx.full(words), typed(tuple(eqn.aval.shape), eqn.aval.dtype))


def _static(shape: Shape) -> tuple[int, ...]:
    if not dims.is_static(shape):
        raise Refusal("random numbers of a dynamic shape, other than by jax_threefry_partitionable (the default)")
    return tuple(shape)


def _random_words(k0: Any, k1: Any, batch: int, shape: Shape, bits: int) -> Any:
    """``shape`` random integers for every key of a batch."""
    k0, k1 = (jnp.reshape(k, (*k.shape, *(1,) * len(shape))) for k in (k0, k1))
    if _partitionable():
        high, low = _counters(shape)
        first, second = _bind_threefry(k0, k1, *(jnp.reshape(c, (*(1,) * batch, *shape)) for c in (high, low)))
        if bits == 64:
            return lax.shift_left(first.astype(jnp.uint64), np.uint64(32)) | second.astype(jnp.uint64)
        return (first ^ second).astype(jnp.dtype(f"uint{bits}"))
    return _sequential_words(k0, k1, batch, shape, bits)


def _sequential_words(k0: Any, k1: Any, batch: int, shape: tuple[int, ...], bits: int) -> Any:
    """The older arrangement: counters in two halves, results one behind the other."""
    size = math.prod(shape)
    needed = -(-bits * size // 32)
    count = np.arange(needed + needed % 2, dtype=np.uint32)
    count[needed:] = 0
    half = len(count) // 2
    lead = jnp.shape(k0)[:batch]
    k0, k1 = (jnp.reshape(k, (*lead, 1)) for k in (k0, k1))
    first, second = _bind_threefry(
        k0, k1, count[:half].reshape((1,) * batch + (-1,)), count[half:].reshape((1,) * batch + (-1,))
    )
    flat = jnp.concatenate([first, second], axis=-1)[..., :needed]
    if bits == 64:
        pairs = (flat[..., : needed // 2], flat[..., needed // 2 :])
        flat = lax.shift_left(pairs[0].astype(jnp.uint64), np.uint64(32)) | pairs[1].astype(jnp.uint64)
    elif bits < 32:
        parts = [lax.shift_right_logical(flat, np.uint32(bits * k)) for k in range(32 // bits)]
        mask = np.uint32((1 << bits) - 1)
        flat = jnp.stack([p & mask for p in parts], axis=-1).reshape((*lead, -1))[..., :size]
        flat = flat.astype(jnp.dtype(f"uint{bits}"))
    return jnp.reshape(flat, (*lead, *shape))


@lowers("random_bits")
def random_bits(ctx: Context, eqn: Any, key: Operand) -> Operand:
    shape, bits = tuple(eqn.params["shape"]), eqn.params["bit_width"]
    batch, kind = key.rank, _implementation(key.dtype)
    if kind is not None or not _partitionable():
        shape = _static(shape)
    if kind is not None:
        drawn = _mapped(lambda w: kind.random_bits(w, bits, shape), batch)
        return ctx.trace_and_lower(drawn, _words(ctx, key))[0]
    with jax.enable_x64(bits == 64 or bool(jax.config.jax_enable_x64)):  # type: ignore[attr-defined]
        return ctx.trace_and_lower(lambda w: _random_words(w[..., 0], w[..., 1], batch, shape, bits), _words(ctx, key))[
            0
        ]


@lowers("random_split")
def random_split(ctx: Context, eqn: Any, key: Operand) -> Operand:
    shape, batch = tuple(eqn.params["shape"]), key.rank
    kind = _implementation(key.dtype)
    if kind is not None or not _partitionable():
        shape = _static(shape)
    if kind is not None:
        split = _mapped(lambda w: kind.split(w, shape), batch)
        return _key_result(ctx, eqn, ctx.trace_and_lower(split, _words(ctx, key))[0])

    def function(w: Any) -> Any:
        k0, k1 = (jnp.reshape(w[..., k], (*w.shape[:-1], *(1,) * len(shape))) for k in (0, 1))
        if _partitionable():
            high, low = _counters(shape)
            return jnp.stack(_bind_threefry(k0, k1, *(c.reshape((1,) * batch + shape) for c in (high, low))), axis=-1)
        words = _sequential_words(k0, k1, batch, (math.prod(shape) * 2,), 32)
        return jnp.reshape(words, (*w.shape[:-1], *shape, 2))

    return _key_result(ctx, eqn, ctx.trace_and_lower(function, _words(ctx, key))[0])


@lowers("random_fold_in")
def random_fold_in(ctx: Context, eqn: Any, key: Operand, data: Operand) -> Operand:
    kind = _implementation(key.dtype)
    if kind is not None:

        def folded(w: Any, d: Any) -> Any:
            w, d = jnp.broadcast_to(w, (*eqn.aval.shape, w.shape[-1])), jnp.broadcast_to(d, eqn.aval.shape)
            return _mapped(kind.fold_in, w.ndim - 1)(w, d.astype(jnp.uint32))

        return _key_result(ctx, eqn, ctx.trace_and_lower(folded, _words(ctx, key), data)[0])

    def function(w: Any, d: Any) -> Any:
        low = d.astype(jnp.uint32)
        return jnp.stack(_bind_threefry(w[..., 0], w[..., 1], jnp.zeros_like(low), low), axis=-1)

    return _key_result(ctx, eqn, ctx.trace_and_lower(function, _words(ctx, key), data)[0])


@lowers("random_seed")
def random_seed(ctx: Context, eqn: Any, seeds: Operand) -> Operand:
    kind = _implementation(eqn.aval.dtype)
    if kind is not None:
        seeded = _mapped(kind.seed, seeds.rank)
        return _key_result(ctx, eqn, ctx.trace_and_lower(seeded, seeds)[0])
    wide = np.dtype(seeds.dtype).itemsize == 8

    def function(s: Any) -> Any:
        low = s.astype(jnp.uint32)
        high = jnp.zeros_like(low)
        if wide:
            high = lax.shift_right_logical(s, jnp.asarray(32, s.dtype)).astype(jnp.uint32)
        return jnp.stack([high, low], axis=-1)

    return _key_result(ctx, eqn, ctx.trace_and_lower(function, seeds)[0])


@lowers("rng_uniform", note="a fixed sequence: a file has no state")
def rng_uniform(ctx: Context, eqn: Any, low: Operand, high: Operand) -> Operand:
    """XLA draws from a generator with hidden state; the file draws the same numbers on every run."""
    shape = _static(tuple(eqn.params["shape"]))
    zero = np.zeros(2, np.uint32)

    def function(a: Any, b: Any) -> Any:
        words = _random_words(jnp.asarray(zero[0]), jnp.asarray(zero[1]), 0, shape, 32)
        if jnp.issubdtype(a.dtype, jnp.floating):
            unit = lax.shift_right_logical(words, np.uint32(8)).astype(jnp.float32) * np.float32(2.0**-24)
            return a + unit.astype(a.dtype) * (b - a)
        return a + (words % (b - a).astype(jnp.uint32)).astype(a.dtype)

    return ctx.trace_and_lower(function, low, high)[0]


@lowers("random_clone")
def random_clone(ctx: Context, eqn: Any, key: Operand) -> Operand:
    if not is_key(key.dtype):
        raise Refusal("a clone of what is no key")
    return key


#: Multipliers and Weyl constants of Philox-4x32 (Salmon et al., SC 2011).
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))


@lowers("rng_bit_generator", note="Philox, as JAX draws on the CPU")
def rng_bit_generator(ctx: Context, eqn: Any, key: Operand) -> list[Operand]:
    """The generator of ``rbg`` keys. XLA's state is a key and a counter of 64 bits; both make the counter of Philox."""
    algorithm = int(eqn.params["algorithm"])
    if algorithm not in (int(lax.RandomAlgorithm.RNG_DEFAULT), int(lax.RandomAlgorithm.RNG_PHILOX)):
        raise Refusal("a bit generator other than Philox")
    shape = _static(tuple(eqn.params["shape"]))
    dtype = np.dtype(eqn.params["dtype"])
    words = math.prod(shape) * (2 if dtype.itemsize == 8 else 1)
    blocks = -(-words // 4)

    def function(state: Any) -> Any:
        pairs = state.reshape(2, 2).astype(jnp.uint64) if state.dtype == jnp.uint32 else None
        first, second = (_joined(*pair) for pair in pairs) if pairs is not None else state
        position = second + jnp.arange(blocks, dtype=jnp.uint64)
        high = first + (position < second).astype(jnp.uint64)
        drawn = _philox([*_parted(position), *_parted(high)], list(_parted(first)))
        flat = jnp.stack(drawn, axis=-1).reshape(-1)[:words]
        flat = _joined(flat[0::2], flat[1::2]) if dtype.itemsize == 8 else flat
        after = jnp.stack([first, second + np.uint64(blocks)])
        after = jnp.stack(_parted(after), axis=-1).reshape(-1).astype(jnp.uint32) if pairs is not None else after
        return after, flat.astype(dtype).reshape(shape)

    with jax.enable_x64(True):
        return ctx.trace_and_lower(function, key)


def _joined(low: Any, high: Any) -> Any:
    return low | lax.shift_left(high, jnp.full_like(high, 32))


def _parted(word: Any) -> tuple[Any, Any]:
    return word & _LOW_WORD, lax.shift_right_logical(word, jnp.full_like(word, 32))


def _philox(counter: list[Any], key: list[Any]) -> list[Any]:
    """Ten rounds on words of 32 bits, held in uint64."""
    c0, c1, c2, c3 = counter
    for _ in range(10):
        low0, high0 = _parted(c0 * _MULTIPLIERS[0])
        low1, high1 = _parted(c2 * _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ key[0], low1, high0 ^ c3 ^ key[1], low0
        key = [(k + weyl) & _LOW_WORD for k, weyl in zip(key, _WEYL, strict=True)]
    return [c0, c1, c2, c3]
