"""Comparing every form of a primitive with the primitive itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from xlapass.core.forms import Form, FormTable, Signature

FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


ROUNDING = {"winograd-4": 1e-5}
"""Forms that round even whole numbers, and how much."""


def small_integers(seed: int, shape: Iterable[int], dtype: Any) -> jax.Array:
    """Whole numbers from -4 to 4: sums of their products are exact, so that every order of adding agrees."""
    values = np.random.default_rng(seed).integers(-4, 5, tuple(shape))
    return jax.numpy.asarray(values).astype(dtype)


def equation_of(fn: Any, *operands: jax.Array, primitive: str) -> Mapping[str, Any]:
    """The parameters of the one equation of that primitive in a function's jaxpr."""
    found = [e for e in jax.make_jaxpr(fn)(*operands).eqns if e.primitive.name == primitive]
    assert len(found) == 1
    return found[0].params


def run(fn: Any, operands: Iterable[jax.Array], params: Mapping[str, Any]) -> list[Any]:
    """All results of ``fn(*operands, **params)``, compiled quickly."""
    operands = tuple(operands)
    lowered = jax.jit(lambda *arrays: jax.tree.leaves(fn(*arrays, **params))).lower(*operands)
    return list(lowered.compile(compiler_options=FAST_COMPILATION)(*operands))


def signature_for(
    primitive: Any, operands: Iterable[jax.Array], params: Mapping[str, Any], constants: Collection[int] = ()
) -> Signature:
    """The signature of a primitive applied to arrays, some of which are constants."""
    operands = tuple(operands)
    results = jax.eval_shape(lambda *arrays: jax.tree.leaves(primitive.bind(*arrays, **params)), *operands)
    return Signature.of(primitive.name, operands, results, params, constants)


def assert_forms_agree(
    table: FormTable,
    primitive: Any,
    operands: Iterable[jax.Array],
    params: Mapping[str, Any],
    *,
    tolerance: float = 0.0,
    only: str | None = None,
    constants: Collection[int] = (),
) -> list[Form]:
    """Every applicable form gives what the primitive gives: types, and values within ``tolerance`` of the largest one.

    Returns the forms that applied.
    """
    operands = tuple(operands)
    signature = signature_for(primitive, operands, params, constants)
    if signature.is_empty:
        assert table.choose(signature).form == "direct"
        return []
    forms = [f for f in table.candidates(signature)[0] if only is None or f.name == only]
    if not forms:
        return []
    expected = run(primitive.bind, operands, params)
    for form in forms:
        actual = run(form.fn, operands, params)
        assert form.cost(signature) > 0
        assert [(a.shape, a.dtype) for a in actual] == [(e.shape, e.dtype) for e in expected], form.name
        for got, want in zip(actual, expected, strict=True):
            exact = form.numerics == "exact"
            allowed = 0.0 if exact else max(tolerance, ROUNDING.get(form.name, 0.0))
            compare(np.asarray(got), np.asarray(want), allowed, str(form), signs=exact)
    return forms


def compare(got: np.ndarray, want: np.ndarray, tolerance: float, name: str, *, signs: bool = False) -> None:
    """Equality (any NaN equal to any other; with ``signs``, 0 not to -0), or relative to the largest finite value."""
    if not jax.numpy.issubdtype(want.dtype, jax.numpy.floating):
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    got, want = got.astype(np.float64), want.astype(np.float64)
    if tolerance == 0.0:
        np.testing.assert_array_equal(got, want, err_msg=name)
        if signs:
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(got) & numbers, np.signbit(want) & numbers, err_msg=name)
        return
    finite = np.abs(want[np.isfinite(want)])
    scale = float(finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale, err_msg=name)
