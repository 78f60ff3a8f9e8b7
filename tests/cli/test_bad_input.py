"""Whatever is wrong: one clear message, the right exit status, no half-written file, and none of our tracebacks."""

from __future__ import annotations

import os
import sys

import pytest

SHORT = "--pipeline=inline,dead-code"

FILES = {
    "syntax.py": "import jax\ndef model(x:\n    return x\n",
    "raises.py": "def helper():\n    return {}['weights']\nmodel = helper()\n",
    "imports.py": "import no_such_package\n",
    "exits.py": "import sys\nsys.exit('no licence')\n",
    "no_model.py": "def modle(x):\n    return x\n",
    "number.py": "model = 3\n",
    "class_.py": "class model:\n    pass\n",
    "no_inputs.py": "def model(x, *, mask=None):\n    return x\n",
    "list_.py": "def model(x):\n    return x\nexample_inputs = [1.0]\n",
    "inputs_raise.py": "def model(x):\n    return x\ndef example_inputs():\n    return 1 / 0\n",
    "count.py": "def model(x, y):\n    return x\nexample_inputs = (1.0,)\n",
    "shapes.py": """\
import jax
import jax.numpy as jnp

@jax.jit
def layer(x, w):
    return jnp.dot(x, w)

def model(x):
    return layer(x, jnp.ones((3, 4)))

example_inputs = (jnp.ones((2, 2)),)
""",
    "branch.py": "def model(x):\n    return x if x > 0 else -x\nexample_inputs = (1.0,)\n",
    "text.py": "def model(x):\n    return {'label': 'cat', 'x': x}\nexample_inputs = (1.0,)\n",
    "linen.py": "import flax.linen as nn\nmodel = nn.Dense(3)\n",
    "binary.py": "\0\1\2",
}

BAD_FILES = [
    ("syntax.py", 1, ["SyntaxError", 'File "syntax.py", line 2', "syntax.py could not be run"]),
    ("raises.py", 1, ["KeyError: 'weights'", 'File "raises.py", line 2, in helper', "raises.py could not be run"]),
    ("imports.py", 1, ["No module named 'no_such_package'", 'File "imports.py", line 1']),
    ("exits.py", 1, ["SystemExit: no licence", 'File "exits.py", line 2']),
    ("no_model.py", 2, ["no_model.py defines no 'model'", "did you mean 'modle'?"]),
    ("number.py", 2, ["is of type int, and not a model"]),
    ("class_.py", 2, ["is a class, not a model"]),
    ("no_inputs.py", 2, ["defines no example_inputs for x", "--input"]),
    ("list_.py", 2, ["must be a tuple with one entry per argument, and is of type list"]),
    (
        "inputs_raise.py",
        1,
        ["ZeroDivisionError", 'File "inputs_raise.py", line 4', "example_inputs() of inputs_raise.py"],
    ),
    ("count.py", 2, ["takes (x, y), and was given 1 argument", "'y'"]),
    (
        "branch.py",
        1,
        ['File "branch.py", line 2, in model', "the function model at branch.py:1", "the value of the argument x"],
    ),
    ("text.py", 1, ["function model at text.py:1", "<class 'str'>", "['label']", "could not be traced"]),
    (
        "shapes.py",
        1,
        ['File "shapes.py", line 6, in layer', "to have the same shape", "model of shapes.py could not be traced"],
    ),
    ("linen.py", 2, ["without its variables", "model = (module, variables)"]),
    ("binary.py", 2, ["is not Python source"]),
    ("missing.py", 2, ["there is no file 'missing.py'"]),
    ("sintax.py", 2, ["did you mean 'syntax.py'?"]),
    ("no.such.module:model", 2, ["there is no file or module 'no.such.module'"]),
    (".", 2, ["is a folder"]),
]


@pytest.mark.parametrize("name, status, expected", BAD_FILES, ids=[name for name, *_ in BAD_FILES])
def test_bad_models(command, tmp_path, name, status, expected):
    for file, text in FILES.items():
        (tmp_path / file).write_text(text)
    result = command(SHORT, name)
    assert result.status == status
    assert result.out == ""
    for part in expected:
        assert part in result.err
    for own in ("/core/", "/cli/", "site-packages/jax", "importlib"):
        assert own not in result.err


def test_an_exception_of_the_users_shows_their_frames_only(command, write):
    write("shapes.py", FILES["shapes.py"])
    assert command(SHORT, "shapes.py").err == (
        "Traceback (most recent call last):\n"
        '  File "shapes.py", line 9, in model\n'
        "    return layer(x, jnp.ones((3, 4)))\n"
        "           ^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        '  File "shapes.py", line 6, in layer\n'
        "    return jnp.dot(x, w)\n"
        "           ^^^^^^^^^^^^^\n"
        "TypeError: dot_general requires contracting dimensions to have the same shape, got (2,) and (3,).\n"
        "error: model of shapes.py could not be traced\n"
    )
    assert "/core/tracing.py" in command(SHORT, "--debug", "shapes.py").err


def test_a_callback_that_raises(command, write):
    write(
        "callback.py",
        """
        import jax
        import numpy as np

        def fails(x):
            raise RuntimeError("no such sensor")

        def model(x):
            return jax.pure_callback(fails, jax.ShapeDtypeStruct((), np.float32), x)

        example_inputs = (1.0,)
        """,
    )
    result = command(SHORT, "callback.py")
    assert result.status == 1
    last = result.err.rpartition("error: ")[2].splitlines()
    assert last[0].startswith("plain JAX could not be compiled or run") and "RuntimeError: no such sensor" in last[0]
    assert last[1:] == ["  hint: --debug shows the traceback"]


BAD_FLAGS = [
    (["--pipelin=cpu"], "there is no option '--pipelin'", "did you mean '--pipeline'?"),
    (["--pipeline=inlin"], "there is no pass or pipeline 'inlin'", "did you mean 'inline'?"),
    (["--pipeline=inline{only=x}"], "pass 'inline' has no option 'only'", ""),
    (["--pipeline=inline,("], "is not closed", ""),
    ([SHORT, "--device=h1000"], "there is no target 'h1000'", "did you mean 'h100'?"),
    (["--device=h1000"], "there is no target 'h1000'", "did you mean 'h100'?"),
    ([SHORT, "--backend=xl"], "there is no backend 'xl'", "did you mean 'xla'?"),
    ([SHORT, "--backend=xla{embed-constants=some}"], "cannot be 'some'", "one of: auto, always, never"),
    ([SHORT, "--emit=hl"], "the xla backend has no stage 'hl'", "did you mean 'hlo'?"),
    ([SHORT, "--emit=ptx"], "a program compiled for the CPU has no PTX", "--device h100"),
    ([SHORT, "--numerics=fast"], "invalid choice: 'fast'", ""),
    ([SHORT, "--report=xml"], "--report cannot be 'xml'", "json"),
    ([SHORT, "--report=table:x"], "--report=table has no file", ""),
    ([SHORT, "--print-ir=never"], "--print-ir cannot be 'never'", "changed"),
    ([SHORT, "--print-ir=changed:simplfy"], "the pipeline has no pass 'simplfy'", ""),
    ([SHORT, "--skip=simplify"], "the pipeline has no pass 'simplify'", "dead-code"),
    ([SHORT, "--stop-after=simplify"], "the pipeline has no pass 'simplify'", "dead-code"),
    ([SHORT, "--emit=hlo", "--dry-run"], "--emit and --dry-run do not go together", ""),
    ([SHORT, "--explain=x", "-o", "x"], "--explain compiles nothing", "leave out -o"),
    ([SHORT, "--emit=hlo", "--report=json"], "would both go to stdout", "--report=json:FILE"),
    ([SHORT, "-o", "-"], "an artifact is not written to stdout", "--emit"),
    ([SHORT, "-o", "no_such/file"], "there is no folder", "create the folder first"),
    ([SHORT, "-o", "."], "it is a folder", ""),
    ([SHORT, "--report=json:no_such/file"], "there is no folder", ""),
    ([SHORT, "--input", "f33[3]"], "has no dtype 'f33'", "did you mean 'f32'?"),
    ([SHORT, "--input", "f32[3"], "cannot read the input 'f32[3'", "f32[1,224,224,3]"),
    ([SHORT, "--input", "f32[a b]"], "cannot read the sizes", ""),
    ([SHORT, "--input", "f32[-1]"], "has a negative size", ""),
    ([SHORT, "--input", "object[3]"], "JAX has no arrays of the dtype 'object'", ""),
    ([SHORT, "--input", "f64[3]"], "64-bit types are off", "JAX_ENABLE_X64"),
    ([SHORT, "--input", "f32", "--input", "f32"], "takes (x), and was given 2 arguments", ""),
    ([SHORT, "--dynamic", "a, b, c"], "does not fit the example arguments", ""),
    ([SHORT, "--entry=modle"], "defines no 'modle'", "did you mean 'model'?"),
    ([SHORT, "extra.py"], "one argument too many: 'extra.py'", ""),
    (["-p", "no_such_plugin", SHORT], "there is no plugin or module 'no_such_plugin'", ""),
    (["-p", "no:no-such", SHORT], "there is no plugin 'no-such' to leave out", "xlapass-passes"),
]


@pytest.mark.parametrize("flags, message, hint", BAD_FLAGS, ids=[" ".join(flags) for flags, *_ in BAD_FLAGS])
def test_bad_flags(command, model, flags, message, hint):
    result = command(model, *flags)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error: ") and message in result.err
    assert hint in result.err and "Traceback" not in result.err


def test_commands_are_suggested(command):
    assert "did you mean 'list'?" in command("lst", "passes").err
    assert "did you mean 'passes'?" in command("list", "pases").err
    assert "write xlapass list ..." in command("-q", "list", "passes").err
    result = command()
    assert result.status == 2 and "examples:" in result.err and result.out == ""


@pytest.mark.parametrize("pipeline", ["cpu-int8", "mobile", "onnx-int8", "onnx-dynamic", "edge"])
@pytest.mark.parametrize("flags", [["-o", "model.out"], ["--dry-run"]])
def test_eight_bits_that_may_not_be_are_an_error(command, model, tmp_path, pipeline, flags):
    result = command("--numerics=exact", f"--pipeline={pipeline}", *flags, model)
    assert result.status == 2 and not result.out and not (tmp_path / "model.out").exists()
    assert result.err.startswith(
        "error: quantization is not allowed under numerics 'exact': pass 'quantize' is lossy\n"
    )
    assert "hint: permit numerics 'lossy', or choose a pipeline without 'quantize'" in result.err


def test_an_impossible_order_is_an_error(command, model, write):
    write(
        "orders.py",
        """
        import dataclasses
        from xlapass import Entry, Pass, PassResult, StableHLOPass, hookimpl

        @dataclasses.dataclass(frozen=True)
        class Needy(Pass):
            name = "needy"
            requires = ("inline",)
            def run(self, program, context):
                return PassResult(program, False)

        @dataclasses.dataclass(frozen=True)
        class Low(StableHLOPass):
            name = "low"
            def apply(self, exported, context):
                return exported

        @hookimpl
        def xlapass_passes():
            return {"needy": Entry(Needy), "low": Entry(Low)}
        """,
    )
    result = command("-p", "orders", "--pipeline=needy", model)
    assert result.status == 2 and "pass 'needy' needs 'inline' before it" in result.err
    result = command("-p", "orders", "--pipeline=low,inline", model)
    assert result.status == 2 and "'inline' works on jaxprs and cannot come after 'low'" in result.err


# -- plugins -----------------------------------------------------------------------------------------------------------

PLUGINS = {
    "raises_at_import.py": "raise RuntimeError('boom')\n",
    "exits_at_import.py": "raise SystemExit('boom')\n",
    "raises_in_hook.py": """\
from xlapass import hookimpl
@hookimpl
def xlapass_passes():
    raise RuntimeError("boom")
""",
    "returns_nonsense.py": """\
from xlapass import hookimpl
@hookimpl
def xlapass_passes():
    return "boom"
""",
    "unknown_hook.py": """\
from xlapass import hookimpl
@hookimpl
def xlapass_boom():
    return {}
""",
}


@pytest.mark.parametrize("name", [name.removesuffix(".py") for name in PLUGINS])
def test_a_failing_plugin_is_left_out(command, model, tmp_path, name):
    (tmp_path / f"{name}.py").write_text(PLUGINS[f"{name}.py"])
    result = command("-p", name, SHORT, "-q", model)
    assert result.status == 0
    assert f"warning: plugin '{name}' (given) failed and is left out" in result.err
    result = command("-p", name, "--strict-plugins", SHORT, model)
    assert result.status == 2 and f"error: plugin '{name}' (given) failed" in result.err
    result = command("plugins", "-p", name)
    assert result.status == 0 and result.err == ""
    assert "Traceback (most recent call last)" in result.out and "failed" in result.out
    assert command("-p", name, "-p", f"no:{name}", SHORT, "-q", model).err == ""


BROKEN = """
    import dataclasses, sys
    import jax.numpy as jnp
    from xlapass import Artifact, Backend, Entry, Pass, PassResult, hookimpl

    @dataclasses.dataclass(frozen=True)
    class Raises(Pass):
        name = "raises"
        def run(self, program, context):
            raise KeyError("boom")

    @dataclasses.dataclass(frozen=True)
    class Exits(Pass):
        name = "exits"
        def run(self, program, context):
            sys.exit("boom")

    @dataclasses.dataclass(frozen=True)
    class Nonsense(Pass):
        name = "nonsense"
        def run(self, program, context):
            return 3

    @dataclasses.dataclass(frozen=True)
    class Liar(Pass):
        name = "liar"
        def run(self, program, context):
            return PassResult(program, True)

    @dataclasses.dataclass(frozen=True)
    class BadBackend(Backend):
        "Fails somewhere."
        name = "bad"
        default_target = "cpu"
        stages = ("stage",)
        how: str = "emit"
        def emit(self, program, target):
            if self.how == "emit":
                raise KeyError("boom")
            return 3 if self.how == "nonsense" else BadArtifact(program, self.how)

    class BadArtifact(Artifact):
        def __init__(self, program, how):
            self.program, self.how = program, how
        def save(self, path):
            raise KeyError("boom")
        def stage(self, name):
            raise KeyError("boom")
        def executable(self):
            if self.how == "executable":
                raise KeyError("boom")
            return {
                "run": lambda *args: {}["boom"],
                "exit": lambda *args: sys.exit("boom"),
                "count": lambda *args: (),
                "shape": lambda *args: {"y": jnp.zeros(3), "sum": jnp.zeros(())},
            }[self.how]

    @hookimpl
    def xlapass_passes():
        return {"raises": Entry(Raises), "exits": Entry(Exits), "nonsense": Entry(Nonsense), "liar": Entry(Liar),
                "number": Entry(3), "gone": Entry("no_such_module:Pass")}

    @hookimpl
    def xlapass_backends():
        return {"bad": Entry(BadBackend), "number": Entry(3)}
"""

BAD_PASSES = [
    ("raises", 1, "pass 'raises' (plugin 'broken') raised KeyError: 'boom'"),
    ("exits", 1, "pass 'exits' (plugin 'broken') raised SystemExit: boom"),
    ("nonsense", 1, "pass 'nonsense' (plugin 'broken') returned int, not a PassResult"),
    ("liar", 1, "pass 'liar' (plugin 'broken') broke the program: it says that it changed"),
    ("number", 2, "pass 'number' of plugin 'broken' is 3, which is not a subclass"),
    ("gone", 2, "pass 'gone' could not be loaded from no_such_module:Pass"),
]


@pytest.mark.parametrize("name, status, message", BAD_PASSES, ids=[name for name, *_ in BAD_PASSES])
def test_bad_passes(command, model, write, name, status, message):
    write("broken.py", BROKEN)
    result = command("-p", "broken", f"--pipeline=inline,{name}", "-o", "out", model)
    assert result.status == status
    assert result.err.startswith("error: ") and message in result.err and "Traceback" not in result.err
    assert not os.path.exists("out")
    assert command("-p", "broken", SHORT, "-q", model).status == 0
    assert command("list", "passes", "-p", "broken").status == 0


def test_debug_shows_the_traceback_of_a_pass(command, model, write):
    write("broken.py", BROKEN)
    flags = ("-p", "broken", "--pipeline=raises", model)
    assert "hint: --debug shows the traceback" in command(*flags).err
    assert 'raise KeyError("boom")' in command("--debug", *flags).err


BAD_BACKENDS = [
    ("bad", [], "backend 'bad' raised KeyError: 'boom'"),
    ("bad{how=nonsense}", [], "backend 'bad' returned int, not an Artifact"),
    ("bad{how=run}", ["--emit=stage"], "backend 'bad' raised KeyError: 'boom'"),
    ("bad{how=run}", ["-o", "out"], "backend 'bad' raised KeyError: 'boom'"),
    ("bad{how=executable}", [], "the program of backend 'bad' could not be compiled or run: KeyError: 'boom'"),
    ("bad{how=run}", [], "the program of backend 'bad' could not be compiled or run: KeyError: 'boom'"),
    ("bad{how=exit}", [], "the program of backend 'bad' could not be compiled or run: SystemExit: boom"),
    ("bad{how=count}", [], "returned 0 outputs where plain JAX returns 2"),
    ("bad{how=shape}", [], "output 'output.y' is float32[3] where plain JAX gives float32[2, 4]"),
]


@pytest.mark.parametrize("backend, flags, message", BAD_BACKENDS, ids=[f"{b} {f}" for b, f, _ in BAD_BACKENDS])
def test_bad_backends(command, model, write, backend, flags, message):
    write("broken.py", BROKEN)
    result = command("-p", "broken", SHORT, "--backend", backend, *flags, model)
    assert result.status == 1 and message in result.err and "Traceback" not in result.err
    assert not os.path.exists("out")
    assert command("-p", "broken", SHORT, "--backend=number", model).status == 2


def test_names_that_clash_are_an_error(command, model, write):
    plugin = """
        from xlapass import Entry, hookimpl
        @hookimpl
        def xlapass_passes():
            return {"mine": Entry("nowhere:Mine")}
    """
    write("one.py", plugin)
    write("two.py", plugin)
    result = command("-p", "one", "-p", "two", SHORT, model)
    assert result.status == 2 and "'one' and 'two' both bring a pass named 'mine'" in result.err


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_failed_run_leaves_the_old_file(command, model, write, tmp_path):
    write("broken.py", BROKEN)
    (tmp_path / "out").write_text("old")
    assert command("-p", "broken", "--pipeline=raises", "-o", "out", model).status == 1
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["broken.py", "model.py", "out"]


def test_a_file_of_another_backend(command, model, write):
    write("broken.py", BROKEN)
    result = command("-p", "broken", SHORT, "-o", "model.bad", model)
    assert result.status == 2
    assert "looks like a file of the bad backend, and this pipeline ends in xla" in result.err


def test_a_failure_of_our_own_is_said_to_be_one(command, monkeypatch):
    def fails(args, terminal):
        raise AssertionError("impossible")

    monkeypatch.setitem(sys.modules["xlapass.cli.command"]._COMMANDS, "plugins", fails)
    result = command("plugins")
    assert result.status == 1
    assert result.err.startswith("error: xlapass itself failed, which it should not: AssertionError: impossible")
    assert "Traceback" not in result.err and "Traceback" in command("plugins", "--debug").err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--no-verify", "checks no file before it is written"),
        ("--check-for=edgetpu", "cannot check for 'edgetpu'"),
        ("--opset=21", "the xla backend has no option for --opset"),
        ("--input-names=image", "the xla backend has no option for --input-names"),
    ],
)
def test_checks_that_a_backend_does_not_have(command, model, option, message):
    result = command(option, model)
    assert result.status == 2
    assert message in result.err
