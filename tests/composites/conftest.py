"""Composites are tested with a registry of their own, into which tests put plugins."""

import types

import pytest
from xlapass.core.manager import PassManager
from xlapass.core.plugins import hookimpl, load_registry

IN_TREE = ("xlapass.plugins.passes", "xlapass.plugins.composites")


@pytest.fixture(scope="session")
def registry_with():
    """``registry_with(name=Entry, ...)``: the in-tree composites, and a plugin with these."""

    def make(entries=None):
        return load_registry([*IN_TREE, *([plugin(entries)] if entries else [])], discover=False)

    return make


@pytest.fixture(scope="session")
def run(registry_with):
    """``run(pipeline, program, entries=None, **options of PassManager)``."""

    def run(pipeline, program, entries=None, **options):
        return PassManager(pipeline, registry=registry_with(entries), **options).run(program)

    return run


def plugin(entries):
    """A plugin named ``stranger`` that brings composites and kernels."""
    module = types.ModuleType("stranger")

    @hookimpl
    def xlapass_composites():
        return entries

    module.xlapass_composites = xlapass_composites
    return module
