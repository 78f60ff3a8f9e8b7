"""Plugins: what they bring, and that one which misbehaves harms nobody else."""

import dataclasses
import subprocess
import sys
import textwrap
import types
import warnings

import numpy as np
import pytest
from xlapass.core.errors import MissingDependencyError, UsageError
from xlapass.core.manager import PassManager
from xlapass.core.pass_ import PassContext, PassResult, RewritePass
from xlapass.core.patterns import op, var
from xlapass.core.pipeline import resolve
from xlapass.core.plugins import (
    KINDS,
    Entry,
    NamedPipeline,
    PhasePasses,
    PluginWarning,
    hookimpl,
    load_registry,
)
from xlapass.core.rewrite import Rule
from xlapass.core.text import program_text
from xlapass.core.tracing import trace

X = np.asarray([1.0, 2.0], np.float32)
x = var("x")


@dataclasses.dataclass(frozen=True)
class Tidy(RewritePass):
    """A pass to which plugins add rules."""

    name = "tidy"

    @classmethod
    def own_rules(cls):
        return [Rule("neg-neg", op.neg(op.neg(x)), x)]


class Good:
    """A plugin as it should be."""

    @hookimpl
    def xlapass_passes(self):
        return {"tidy": Entry(Tidy, "tidies"), "lazy": Entry("tests_that_do_not_exist:Lazy", "never loaded")}

    @hookimpl
    def xlapass_rules(self):
        return {"tidy": Entry([Rule("abs-abs", op.abs(op.abs(x)), lambda x: abs(x))])}

    @hookimpl
    def xlapass_pipelines(self):
        return {"clean": NamedPipeline("tidy", "xla", "tidies up", "cpu")}

    @hookimpl
    def xlapass_phases(self):
        return [PhasePasses("simplify", "tidy")]


class MoreRules:
    """Adds to another plugin's pass."""

    @hookimpl
    def xlapass_rules(self):
        return {"tidy": Entry([Rule("sin-abs", op.sin(op.abs(x)), lambda x: x * 2)])}


def plugin(name="Bad", **hooks):
    """A module-like plugin whose hooks return the given values, or call them."""
    module = types.ModuleType(name)
    for hook, result in hooks.items():
        function = result if callable(result) else (lambda result=result: result)
        setattr(module, hook, hookimpl(function))
    return module


def load(*plugins, **keywords):
    return load_registry(plugins, discover=False, **keywords)


# -- what plugins bring ------------------------------------------------------------------------------------------------


def test_what_a_plugin_brings():
    registry = load(Good(), strict=True)
    assert registry.names("pass") == ["lazy", "tidy"] and registry.names("backend") == []
    assert registry.load("pass", "tidy") is Tidy
    assert registry.find("pass", "tidy").plugin == "Good"
    assert registry.find("pipeline", "clean").entry.target == "cpu"
    assert registry.phase("simplify", None) == [("Good", "tidy")] and registry.phase("finish", None) == []
    (status,) = registry.status()
    assert (status.name, status.origin, status.state, status.error) == ("Good", "given", "active", "")
    assert status.brings == {"pass": ("tidy", "lazy"), "rule set": ("tidy",), "pipeline": ("clean",)}


def test_unknown_names_are_suggested():
    registry = load(Good())
    with pytest.raises(UsageError, match=r"there is no pass 'tidi'\n  hint: did you mean 'tidy'\?"):
        registry.find("pass", "tidi")
    with pytest.raises(UsageError, match="there is no backend 'xla'"):
        registry.load("backend", "xla")


def test_rules_from_several_plugins_reach_the_pass():
    registry = load(Good(), MoreRules(), strict=True)
    context = PassContext(registry)
    assert [r.name for r in Tidy().rules(context)] == ["neg-neg", "abs-abs", "sin-abs"]
    assert [r.name for r in Tidy(only=("sin-abs",)).rules(context)] == ["sin-abs"]
    assert [r.name for r in Tidy(skip=("abs-abs",)).rules(context)] == ["neg-neg", "sin-abs"]
    with pytest.raises(UsageError, match="pass 'tidy' has no rule 'sin-abz'"):
        Tidy(only=("sin-abz",)).rules(context)
    import jax.numpy as jnp

    program = PassManager("tidy", registry=registry).run(trace(lambda v: jnp.sin(abs(v)), X))
    assert program_text(program) == "program(a:f32[2]):\n  b:f32[2] = mul a 2.0:f32[]\n  return b"


def test_phases_come_in_the_order_of_plugin_names():
    first = plugin("zebra", xlapass_phases=[PhasePasses("simplify", "tidy{only=a}")])
    second = plugin("aardvark", xlapass_phases=[PhasePasses("simplify", "tidy{only=b}")])
    registry = load(first, second, Good())
    assert [name for name, _ in registry.phase("simplify", None)] == ["Good", "aardvark", "zebra"]
    assert [s.plugin for s in resolve("phase(simplify)", registry).steps()] == ["Good", "aardvark", "zebra"]


def test_plugins_by_importable_name(tmp_path, monkeypatch):
    (tmp_path / "plugin_by_name.py").write_text(
        textwrap.dedent("""
            from xlapass.core.plugins import Entry, hookimpl

            @hookimpl
            def xlapass_passes():
                return {"by-name": Entry("plugin_by_name:Nothing", "brought by name")}
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = load("plugin_by_name", strict=True)
    assert registry.names("pass") == ["by-name"]
    assert registry.find("pass", "by-name").plugin == "plugin_by_name"
    with pytest.raises(UsageError, match="could not be loaded from plugin_by_name:Nothing: AttributeError"):
        registry.load("pass", "by-name")


def test_missing_extras():
    registry = load(plugin(xlapass_backends={"far": Entry(dict, "", "far-away", ("json", "no_such_module"))}))
    entry = registry.find("backend", "far").entry
    assert entry.missing() == ["no_such_module"]
    with pytest.raises(MissingDependencyError, match=r"backend 'far' needs the package 'no_such_module'") as failure:
        registry.load("backend", "far")
    assert failure.value.hint == "pip install xlapass[far-away]" and failure.value.exit_status == 2
    assert registry.all_of("backend") == {}
    assert Entry(dict, needs=("no_such_package.inner",)).missing() == ["no_such_package.inner"]


# -- isolation ---------------------------------------------------------------------------------------------------------


def broken():
    raise RuntimeError("out of order")


MISBEHAVING = {
    "raises in a hook": (plugin(xlapass_passes=broken), "RuntimeError: out of order"),
    "exits": (plugin(xlapass_passes=lambda: sys.exit(3)), "SystemExit"),
    "returns a list": (plugin(xlapass_passes=["tidy"]), "xlapass_passes returned list, not a mapping"),
    "returns no entries": (plugin(xlapass_passes={"tidy": Tidy}), "not a name with an Entry"),
    "returns unnamed entries": (plugin(xlapass_passes={1: Entry(Tidy)}), "not a name with an Entry"),
    "returns no named pipelines": (plugin(xlapass_pipelines={"a": "tidy"}), "not a name with an NamedPipeline"),
    "returns no phases": (plugin(xlapass_phases=["tidy"]), "'tidy', which is not a PhasePasses"),
    "returns one phase": (plugin(xlapass_phases=PhasePasses("a", "b")), "TypeError"),
    "misspells a hook": (plugin(xlapass_pases={}), "unknown hook 'xlapass_pases'"),
    "wants arguments": (plugin(xlapass_passes=lambda registry: {}), "Argument(s) {'registry'} are declared"),
    "does not exist": ("no_such_plugin", "ModuleNotFoundError: No module named 'no_such_plugin'"),
}


@pytest.mark.parametrize("kind", MISBEHAVING)
def test_a_plugin_that_misbehaves_is_left_out_and_the_others_work(kind):
    bad, message = MISBEHAVING[kind]
    with pytest.warns(PluginWarning) as caught:
        registry = load(bad, Good())
    assert len(caught) == 1
    assert message in str(caught[0].message) and "failed and is left out" in str(caught[0].message)
    assert registry.names("pass") == ["lazy", "tidy"] and registry.names("pipeline") == ["clean"]
    assert [s.state for s in registry.status()] == ["failed", "active"]
    assert "Traceback" in registry.status()[0].error
    assert resolve("clean", registry)


@pytest.mark.parametrize("kind", MISBEHAVING)
def test_strictness_makes_it_an_error(kind):
    bad, message = MISBEHAVING[kind]
    with pytest.raises(UsageError, match=r"plugin '\w+' \(given\) failed") as failure:
        load(Good(), bad, strict=True)
    assert message in failure.value.message and failure.value.hint.startswith("leave it out with -p no:")


def test_a_plugin_that_raises_at_import(tmp_path, monkeypatch):
    (tmp_path / "raises_at_import.py").write_text("raise OSError('the disk is on fire')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(PluginWarning, match="'raises_at_import' .* OSError: the disk is on fire"):
        registry = load("raises_at_import", Good())
    assert "the disk is on fire" in registry.status()[0].error and "tidy" in registry.names("pass")


def test_the_same_plugin_twice():
    good = Good()
    with pytest.warns(PluginWarning, match="another plugin of this name is active"):
        registry = load(good, good)
    assert registry.names("pass") == ["lazy", "tidy"]


def test_an_entry_that_cannot_be_loaded_harms_only_who_asks_for_it():
    registry = load(Good(), strict=True)
    with pytest.raises(UsageError, match="pass 'lazy' could not be loaded from tests_that_do_not_exist:Lazy"):
        registry.load("pass", "lazy")
    assert registry.load("pass", "tidy") is Tidy


# -- blocking and clashes ----------------------------------------------------------------------------------------------


def test_blocked_plugins_are_not_even_imported():
    registry = load("no_such_plugin", Good(), block=["no_such_plugin", "Good"])
    assert [s.state for s in registry.status()] == ["blocked", "blocked"]
    assert registry.names("pass") == []


def test_blocking_what_is_not_there():
    with pytest.raises(UsageError, match=r"there is no plugin 'Godo' to leave out\n  hint: did you mean 'Good'\?"):
        load(Good(), block=["Godo"])


def test_two_plugins_with_one_name_for_a_thing():
    rival = plugin("rival", xlapass_passes={"tidy": Entry(Tidy)})
    with pytest.raises(UsageError, match="the plugins 'Good' and 'rival' both bring a pass named 'tidy'") as failure:
        load(Good(), rival)
    assert failure.value.hint == "leave one out with -p no:Good or -p no:rival"
    assert load(Good(), rival, block=["Good"]).find("pass", "tidy").plugin == "rival"


def test_a_pass_and_a_pipeline_share_one_name_space():
    with pytest.raises(UsageError, match="'Good' and 'rival' bring a pass and a pipeline, both named 'tidy'"):
        load(Good(), plugin("rival", xlapass_pipelines={"tidy": NamedPipeline("lazy", "xla")}))


def test_the_same_name_for_things_of_different_kinds():
    load(Good(), plugin("rival", xlapass_backends={"tidy": Entry(dict)}), strict=True)


# -- what is installed -------------------------------------------------------------------------------------------------


def test_what_comes_with_the_package():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry = load_registry(strict=True)
    statuses = {s.name: s for s in registry.status()}
    assert statuses["xlapass-passes"].origin.startswith("xlapass ")
    assert all(s.state == "active" for s in statuses.values())
    assert {"inline", "dead-code", "simplify"} <= set(registry.names("pass"))
    for kind in KINDS:
        for name in registry.names(kind):
            entry = registry.find(kind, name).entry
            assert entry.summary and not entry.summary.endswith("."), f"{kind} {name} has no summary"


def test_listing_imports_nothing_heavy():
    code = textwrap.dedent("""
        import sys
        from xlapass.core.plugins import KINDS, load_registry

        registry = load_registry(strict=True)
        names = [name for kind in KINDS for name in registry.names(kind)]
        assert "simplify" in names, names
        missing = [registry.find(kind, name).entry.missing() for kind in KINDS if kind != "pipeline"
                   for name in registry.names(kind)]
        heavy = {"jax", "jaxlib", "numpy", "onnx", "flax", "rich"} & set(sys.modules)
        assert not heavy, heavy
    """)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_context_without_plugins_still_runs_passes():
    program = trace(lambda v: v, X)
    result = Tidy().run(program, PassContext(load_registry(discover=False)))
    assert isinstance(result, PassResult) and not result.changed and result.program is program
