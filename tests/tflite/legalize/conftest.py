"""Legalization is tested where it counts: the file of the legal program, run by LiteRT, gives what JAX gives."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pytest
import xlapass
from xlapass.backends.tflite import engines, legality
from xlapass.backends.tflite.assembly import assemble
from xlapass.backends.tflite.check import run_file
from xlapass.backends.tflite.conversion import convert
from xlapass.backends.tflite.edges import with_edges
from xlapass.backends.tflite.interface import interface_of
from xlapass.backends.tflite.process import Worker

SWEEP = os.environ.get("XLAPASS_SWEEP") == "1"
TOLERANCE = 2e-3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a parameter ``case`` runs for every entry of its module's ``CASES``; without a sweep, for a few."""
    if "case" not in metafunc.fixturenames:
        return
    names = list(metafunc.module.CASES)
    step = 1 if SWEEP else getattr(metafunc.module, "STEP", 1)
    metafunc.parametrize("case", [metafunc.module.CASES[name] for name in names[::step]], ids=names[::step])


@pytest.fixture(scope="session")
def agrees() -> Iterator[Any]:
    """``agrees(fn, *args, x64=False, tolerance=...)`` asserts that the file gives what JAX gives."""
    with Worker(timeout_s=120) as worker:
        yield functools.partial(_agrees, worker)


def legal(fn: Any, args: Sequence[Any]) -> Any:
    """The program after legalization, which the legality table takes."""
    program = xlapass.PassManager("inline,legalize-tflite,dead-code").run(xlapass.trace(fn, *args))
    legality.table().require(program, "tflite")
    return program


def _agrees(worker: Worker, fn: Any, *args: Any, x64: bool = False, tolerance: float = TOLERANCE) -> None:
    with jax.enable_x64(x64):
        want = jax.tree.leaves(jax.jit(fn)(*args))
        program = legal(fn, args)
        interface = interface_of(program)
        converted = convert(with_edges(program), engines.choose("litert", ""), worker)
        model = assemble(converted.model, interface, {"xlapass": xlapass.__version__})
        got = run_file(program, interface, model, jax.tree.leaves(args), worker)
        for expected, found in zip(want, got, strict=True):
            assert_equal(expected, found, tolerance)


def assert_equal(want: Any, got: Any, tolerance: float) -> None:
    """Equal integers, keys and booleans; floats and complex numbers within a tolerance, NaN where NaN is."""
    if jax.numpy.issubdtype(want.dtype, jax.dtypes.prng_key):
        want, got = jax.random.key_data(want), jax.random.key_data(got)
    want, got = np.asarray(want), np.asarray(got)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if want.dtype.kind in "biu":
        np.testing.assert_array_equal(got, want)
        return
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=tolerance, atol=tolerance, equal_nan=True)
