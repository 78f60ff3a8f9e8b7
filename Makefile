# Two commands on a fresh machine: `make demo` and `make test`. PYTHON chooses the interpreter, 3.11 or newer.

PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(notdir $(PYTHON))),-$(notdir $(PYTHON)),)
RUN := $(VENV)/bin/python
WORKERS ?= 2

.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  \1\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "xlapass needs Python 3.11 or newer, and $(PYTHON) is %s; say PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,flax,onnx,tflite]'
	@touch $@

setup: $(VENV)/.installed  ## create the virtual environment

.venv-tensorflow/.installed: constraints.txt
	$(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt tensorflow-cpu jax flax
	@touch $@

tensorflow: .venv-tensorflow/.installed  ## an environment with TensorFlow, for the other engine of TFLite files

demo: setup  ## compile and run a Flax MobileNetV2 for this machine's CPU, and show what was done
	$(RUN) -m xlapass --pipeline=cpu examples/mobilenet_v2.py

test: setup tensorflow lint  ## lint, types and the test suite
	$(RUN) -m pytest -q -n $(WORKERS)

lint: setup  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	@mkdir -p build/types && ln -sfn ../.. build/types/xlapass
	@# JAX's own annotations differ between releases; types are checked with those of the floor, JAX 0.10.
	@if $(RUN) -c 'import jax, sys; sys.exit(jax.__version_info__ >= (0, 11))'; \
	then $(RUN) -m mypy; else echo "types: checked with JAX 0.10 only"; fi

sweep: setup  ## the long property tests
	XLAPASS_SWEEP=1 $(RUN) -m pytest -q -n $(WORKERS)

bench: setup  ## measure the model zoo: jax.jit, xlapass.jit and other runtimes, side by side
	$(RUN) benchmarks/bench.py

wheel: setup  ## build the wheel into dist/
	$(RUN) -m build --wheel --outdir dist .

clean:  ## remove what was built and installed
	rm -rf build dist *.egg-info .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help setup tensorflow demo test lint sweep bench wheel clean
