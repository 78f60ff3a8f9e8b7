"""Ambient settings of all tests: strict, deterministic, on the CPU.

Warnings are errors by the pytest configuration. Hypothesis draws the same few examples in every run; the environment
variable ``XLAPASS_SWEEP=1`` selects many random ones instead.
"""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent))  # for `from programs import programs`, from any folder of tests

import hypothesis
import jax

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_enable_x64", False)
jax.config.update("jax_enable_compilation_cache", False)

_SLOW_ON_PURPOSE = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
"""Every example compiles a program."""

hypothesis.settings.register_profile(
    "default", deadline=None, max_examples=25, derandomize=True, suppress_health_check=_SLOW_ON_PURPOSE
)
hypothesis.settings.register_profile(
    "sweep", deadline=None, max_examples=1000, print_blob=True, suppress_health_check=_SLOW_ON_PURPOSE
)
hypothesis.settings.load_profile("sweep" if os.environ.get("XLAPASS_SWEEP") == "1" else "default")
