"""Where the tests of the TFLite backend find its engines, and one worker for all of them."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litert_converter", reason="the tflite extra is not installed")
pytest.importorskip("ai_edge_litert", reason="the tflite extra is not installed")

import xlapass
from xlapass.backends.tflite.backend import TfliteBackend

TENSORFLOW_ENVIRONMENT = Path(__file__).parents[2] / ".venv-tensorflow"


@functools.cache
def tensorflow_python() -> str | None:
    """The interpreter of an environment with TensorFlow: that of ``make tensorflow``, or this one; None without."""
    python = TENSORFLOW_ENVIRONMENT / "bin" / "python"
    if python.exists():
        return str(python)
    return sys.executable if importlib.util.find_spec("tensorflow") is not None else None


@pytest.fixture(scope="session")
def compiled() -> Callable[..., Any]:
    """``compiled(fn, *args, **options)``: the artifact of the pipeline ``tflite`` on the LiteRT engine."""

    def run(fn: Any, *args: Any, **options: Any) -> Any:
        return xlapass.compile(fn, *args, pipeline="tflite", backend=TfliteBackend(engine="litert", **options))

    return run


@pytest.fixture(scope="session")
def tensorflow() -> dict[str, str]:
    """Options of the backend for the TensorFlow engine; skips where there is none."""
    python = tensorflow_python()
    if python is None:
        pytest.skip("TensorFlow is not installed: make tensorflow")
    return {"engine": "tensorflow", "python": python}
