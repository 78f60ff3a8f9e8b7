"""`examples/plugin`, installed into an environment of its own and used through the command and the API."""

import json

import pytest

MODEL = """
import jax
import jax.numpy as jnp
import numpy as np

WEIGHTS = np.linspace(-1.0, 1.0, 20, dtype=np.float32).reshape(4, 5)


def model(x):
    return jax.nn.softmax(jnp.square(jax.nn.relu(x @ WEIGHTS))) + 1 / jnp.sqrt(x.sum())


example_inputs = (jnp.linspace(1.0, 2.0, 12).reshape(3, 4),)
"""

API = """
import json
import numpy as np
import xlapass
from model import example_inputs, model

(x,) = example_inputs
registry = xlapass.load_registry(strict=True)
status = {s.name: s.state for s in registry.status()}
kinds = {kind: [n for n in registry.names(kind) if registry.find(kind, n).plugin == "example"]
         for kind in ("pass", "composite", "backend", "target", "pipeline")}

program = xlapass.PassManager("inline,simplify{only=reciprocal-square-root}").run(xlapass.trace(model, x))
rules = sorted(set(program.provenance.values()))

report = xlapass.Report()
rounded = xlapass.PassManager("round-weights{mantissa-bits=3}", instruments=[report]).run(xlapass.trace(model, x))
distinct = len(np.unique(np.asarray(rounded.consts[0]).view(np.uint32) & 0xFFFFF))

artifact = xlapass.compile(model, x, pipeline="numpy", verify="numerics")
artifact.save("from_api.py")
artifact.executable()(x)

on_cpu = xlapass.compile(model, x, pipeline="cpu")
print(json.dumps({
    "status": status["example"],
    "kinds": kinds,
    "rules": rules,
    "rounded": report.records[0].changed and distinct <= 8,
    "largest error": float(np.max(np.abs(artifact.executable()(x) - model(x)))),
    "kernel": [r.pass_ for r in on_cpu.report.records if "kernel of example" in r.details],
    "phases": [(r.pass_, r.phase, r.plugin) for r in on_cpu.report.records if r.plugin == "example"],
    "weights": on_cpu.report.records[-1].details["weights"],
    "error on the cpu": float(np.max(np.abs(on_cpu.executable()(x) - model(x)))),
}))
"""


COMMANDS = """
import contextlib
import io
import json
import sys
from xlapass.cli import main

results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    results.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def folder(environment):
    """A folder with a model."""
    (environment.folder / "model.py").write_text(MODEL)
    return environment.folder


def test_its_own_tests_and_those_of_a_fresh_skeleton_pass(environment):
    paths = [environment.example / "tests", environment.skeleton / "tests"]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-W", "error"]
    done = environment.run("-m", "pytest", *options, f"--rootdir={environment.folder}", *paths)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_of_it_through_the_api(environment, folder):
    (folder / "use.py").write_text(API)
    done = environment.run("-W", "error", "use.py")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.pop("largest error") < 1e-5 and result.pop("error on the cpu") < 1e-5
    assert result == {
        "status": "active",
        "kinds": {
            "pass": ["count-weights", "round-weights"],
            "composite": ["example.squared_relu", "example.squared_relu/cpu"],
            "backend": ["numpy-script"],
            "target": ["numpy"],
            "pipeline": ["numpy"],
        },
        "rules": ["reciprocal-square-root"],
        "rounded": True,
        "kernel": ["lower-composites"],
        "phases": [["count-weights", "finish", "example"]],
        "weights": {"float32": 20},
    }


def test_the_pipeline_and_the_backend_through_the_command(environment, folder):
    done = environment.run("-m", "xlapass", "--pipeline=numpy", "--report=json:report.json", "-o", "net.py", "model.py")
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text())
    passes = {record["pass"]: record for record in report["passes"]}
    assert passes["fuse{only=squared-relu}"]["rules"] == {"squared-relu": 1}
    assert passes["count-weights"]["phase"] == "finish"
    code = "import sys; sys.modules['jax'] = None; import net, numpy as np; print(net.main(np.ones((3, 4), 'float32')))"
    assert environment.run("-W", "error", "-c", code).returncode == 0


def test_what_the_command_says_of_it(environment, folder):
    backend = "--backend=numpy-script{function=predict}"
    commands = [
        ["--dry-run", "--pipeline=numpy"],
        ["--pipeline=numpy", backend, "--emit=script", "--no-run", "model.py"],
        ["list", "plugins"],
        ["help", "round-weights"],
        ["-p", "no:example", "--pipeline=numpy", "model.py"],
    ]
    (folder / "commands.py").write_text(COMMANDS)
    done = environment.run("commands.py", json.dumps(commands))
    assert done.returncode == 0, done.stderr
    plan, script, plugins, explained, blocked = json.loads(done.stdout)
    assert plan[0] == 0 and "backend numpy-script, target numpy" in plan[1]
    assert ["count-weights", "finish", "example"] in [line.split() for line in plan[1].splitlines()]
    assert script[0] == 0 and "def predict(x):" in script[1] and "squared_relu(" in script[1]
    assert plugins[0] == 0 and "xlapass-example-plugin 0.1.0" in plugins[1]
    assert explained[0] == 0 and "mantissa-bits" in explained[1]
    assert blocked[0] == 2 and "'numpy'" in blocked[2]
