"""``xlapass MODEL``: what it shows, writes and returns."""

import dataclasses
import json

import jax
import numpy as np
import pytest

SHORT = "--pipeline=inline,dead-code"


def test_a_model_is_compiled_run_and_compared(command, model):
    result = command(SHORT, model)
    assert result.status == 0
    assert "dead-code" in result.out and "xlapass-passes" in result.out
    assert "ran on cpu" in result.out and "equal to plain JAX bit for bit" in result.out
    assert result.err == ""


def test_piped_output_has_no_colour_and_no_progress(command, model):
    result = command(SHORT, "--print-ir=changed", model)
    assert "\x1b" not in result.out + result.err


def test_quiet_shows_nothing_when_all_is_well(command, model):
    assert dataclasses.astuple(command(SHORT, "-q", model)) == (0, "", "")


def test_what_the_model_prints_goes_to_stderr(command, write):
    write("chatty.py", "print('loading')\ndef model(x):\n    print('tracing')\n    return x\nexample_inputs = (1.0,)\n")
    result = command(SHORT, "--emit=jaxpr", "--report=none", "chatty.py")
    assert result.out.startswith("{ lambda")
    assert "loading" in result.err and "tracing" in result.err


@pytest.mark.parametrize(
    "stage, sign", [("jaxpr", "dot_general"), ("stablehlo", "stablehlo.dot_general"), ("hlo", "ROOT")]
)
def test_a_stage_goes_to_stdout_and_the_report_to_stderr(command, model, stage, sign):
    result = command(SHORT, f"--emit={stage}", model)
    assert result.status == 0
    assert sign in result.out and "dead-code" not in result.out
    assert "dead-code" in result.err


def test_a_stage_goes_to_a_file(command, model, tmp_path):
    result = command(SHORT, "--emit=jaxpr", "-o", "stage.txt", model)
    assert "dot_general" in (tmp_path / "stage.txt").read_text()
    assert "wrote stage.txt" in result.err and "dead-code" in result.out
    assert "dot_general" in command(SHORT, "--emit=jaxpr", "-o", "-", model).out


def test_an_artifact_runs_without_xlapass(command, model, tmp_path):
    result = command(SHORT, "-o", "model.jax_export", "--no-run", model)
    assert result.status == 0 and "wrote model.jax_export" in result.err and "ran on" not in result.out
    exported = jax.export.deserialize(bytearray((tmp_path / "model.jax_export").read_bytes()))
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(exported.call(x)["sum"], 15.0)


def test_a_report_as_json(command, model, tmp_path):
    data = json.loads(command(SHORT, "--report=json", model).out)
    assert [one["pass"] for one in data["passes"]] == ["inline", "dead-code"]
    assert data["backend"] == "xla" and data["target"] == "cpu"
    assert data["run"]["acceptable"] and set(data["run"]["outputs"]) == {"output.y", "output.sum"}
    result = command(SHORT, "--report=json:report.json", "--emit=jaxpr", model)
    assert json.loads((tmp_path / "report.json").read_text())["run"] is None
    assert result.out.startswith("{ lambda")


def test_what_a_pass_changed_is_shown(command, model):
    result = command(SHORT, "--print-ir=changed:dead-code", "--no-run", "--report=none", model)
    before, after = "  b:f32[2,3]\n", "  d:f32[2,4] = dot_general"
    assert "=== changed by dead-code" in result.out
    assert "\n- c:f32[2,3] = sin b  # model.py:7 (model)\n" in result.out
    assert "+" not in result.out
    assert before.strip() in result.out and after.strip() in result.out


def test_programs_are_shown_before_and_after(command, model):
    shown = command(SHORT, "--print-ir=before", "--no-run", "--report=none", model).out
    assert "=== before inline\n" in shown and "=== before dead-code\n" in shown
    shown = command(SHORT, "--print-ir=after:inline", "--no-run", "--report=none", model).out
    assert "=== after inline\n" in shown and "dead-code" not in shown


def test_a_dry_run_shows_passes_phases_and_plugins(command, write):
    write(
        "inserts.py",
        """
        from xlapass.core.plugins import NamedPipeline, PhasePasses, hookimpl

        @hookimpl
        def xlapass_pipelines():
            return {"mine": NamedPipeline("inline,phase(optimize),fixpoint{limit=3}(dead-code)", "xla", "mine", "cpu")}

        @hookimpl
        def xlapass_phases():
            return [PhasePasses("optimize", "common-subexpressions")]
        """,
    )
    result = command("--dry-run", "--pipeline=mine", "-p", "inserts")
    assert result.out.splitlines() == [
        "pass                         phase     plugin",
        "inline                       -         xlapass-passes",
        "common-subexpressions        optimize  inserts",
        "fixpoint, at most 3 rounds:",
        "  dead-code                  -         xlapass-passes",
        "",
        "backend xla, target cpu",
    ]


def test_passes_are_skipped_and_cut_off(command):
    pipeline = "--pipeline=inline,common-subexpressions,dead-code"
    assert "inline" not in command("--dry-run", pipeline, "--skip=inline").out
    assert "dead-code" not in command("--dry-run", pipeline, "--stop-after=common-subexpressions").out


RULES = """
    import dataclasses
    from xlapass import Entry, RewritePass, Rule, hookimpl
    from xlapass.core.patterns import number, op, var

    def only_squares(match):
        shape = match["x"].shape
        return None if len(shape) == 2 and shape[0] == shape[1] else f"{list(shape)} is not square"

    @dataclasses.dataclass(frozen=True)
    class Rules(RewritePass):
        "Rules to be explained."
        name = "rules"
        @classmethod
        def own_rules(cls):
            return [
                Rule("double", op.mul(var("x"), number(2.0)), lambda x: x + x, check=only_squares),
                Rule("wrong", op.sin(var("x")), lambda x: x + 1.0),
                Rule("loose", op.cos(var("x")), lambda x: x, numerics="lossy"),
            ]

    @hookimpl
    def xlapass_passes():
        return {"rules": Entry(Rules)}
"""
RULES_MODEL = """
    import jax.numpy as jnp
    def model(x, y):
        a = x * 2.0
        b = y * 2.0
        c = y * 3.0
        return a, b, jnp.sin(c)
    example_inputs = (jnp.ones((2, 2)), jnp.ones((2, 3)))
"""


@pytest.fixture
def rules(write):
    write("rules.py", RULES)
    write("model.py", RULES_MODEL)
    return ("-p", "rules", "--pipeline=rules", "model.py")


def test_a_rule_is_explained(command, rules):
    lines = command("--explain=double", *rules).out.splitlines()
    assert lines[0].startswith("rule 'double' (") and "rules.py:" in lines[0]
    assert lines[1:5] == [
        "  applied once: 1 in rules",
        "  matched, and declined by its check:",
        "    mul at model.py:4 (model): [2, 3] is not square",
        "  matched in part:",
    ]
    assert all(line.startswith("    mul at model.py:5 (model): expected the number 2 and found") for line in lines[5:])


def test_a_rule_without_a_candidate_is_explained(command, rules):
    assert "never tried: the program has no cos" in command("--explain=loose", *rules).out


def test_a_rule_that_is_not_used_is_an_error(command, rules):
    result = command("--explain=loose", "--numerics=exact", *rules)
    assert result.status == 2 and "it is lossy, and --numerics=exact" in result.err
    result = command("--explain=duble", *rules)
    assert result.status == 2 and "did you mean 'double'?" in result.err


def test_a_wrong_result_is_said_even_when_quiet(command, rules):
    result = command("-q", *rules)
    assert result.status == 0
    assert "warning: output 'output.2' differs from plain JAX" in result.err and "--verify=numerics" in result.err


def test_numerical_verification_names_the_rule_and_the_line(command, rules):
    result = command("--verify=numerics", *rules)
    assert result.status == 1
    assert "pass 'rules' (plugin 'rules')" in result.err and "rule 'wrong'" in result.err
    assert "model.py:6 (model)" in result.err and "Traceback" not in result.err


def test_permitted_numerics_show_in_the_dry_run(command, write):
    write(
        "lossy.py",
        """
        import dataclasses
        from xlapass import Entry, Pass, PassResult, hookimpl

        @dataclasses.dataclass(frozen=True)
        class Lossy(Pass):
            name = "lossy"
            numerics = "lossy"
            def run(self, program, context):
                return PassResult(program, False)

        @hookimpl
        def xlapass_passes():
            return {"lossy": Entry(Lossy)}
        """,
    )
    shown = command("--dry-run", "--pipeline=inline,lossy", "-p", "lossy", "--numerics=exact").out
    assert "lossy   -      lossy  (left out: it is lossy)" in shown


def test_a_gpu_that_is_not_here(command, model, tmp_path):
    result = command(SHORT, "--device", "H100", "-o", "model.jax_export", model)
    assert result.status == 0
    assert "not run: this machine has no cuda device" in result.out
    assert (tmp_path / "model.jax_export").exists() and "h100" in result.err


@pytest.mark.parametrize(
    "flags, warning",
    [
        (["--pipeline=cpu", "--device=h100"], "pipeline 'cpu' is not for h100\n  hint: --pipeline=gpu is"),
        (["--pipeline=gpu", "--device=cpu"], "pipeline 'gpu' is not for cpu\n  hint: --pipeline=cpu is"),
        (["--pipeline=gpu", "--device=t4"], ""),
        (["--device=h100"], ""),
        ([SHORT, "--device=h100"], ""),
    ],
)
def test_a_pipeline_for_another_platform(command, flags, warning):
    result = command("--dry-run", *flags)
    assert result.status == 0
    assert result.err == (f"warning: {warning}\n" if warning else "")


def test_an_empty_pipeline_has_no_passes(command, model):
    assert json.loads(command("--pipeline=", "--report=json", model).out)["passes"] == []


def test_backend_options(command, model):
    hlo = command(SHORT, "--backend", "xla{embed-constants=never}", "--emit=hlo", "-q", model).out
    assert "f32[3,4]{1,0} parameter(0)" in hlo
    hlo = command(SHORT, "--backend", "xla{embed-constants=always}", "--emit=hlo", "-q", model).out
    assert "f32[3,4]{1,0} parameter(0)" not in hlo


def test_a_program_of_symbolic_sizes_runs(command, write):
    write(
        "rows.py",
        "import jax.numpy as jnp\ndef model(x):\n    return jnp.ones_like(x) * x.shape[0] + x.reshape(-1)[:1]\n",
    )
    result = command(SHORT, "--input", "f32[batch,3]", "rows.py")
    assert result.status == 0 and "equal to plain JAX bit for bit" in result.out


def test_symbolic_sizes(command, model):
    result = command(SHORT, "--input", "f32[batch,3]", "--emit=stablehlo", "-q", model)
    assert "tensor<?x3xf32>" in result.out
    assert "ran on cpu" in command(SHORT, "--dynamic", "batch, ...", model).out
