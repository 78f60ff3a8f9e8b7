"""The command line: what can be asked for, and how `--help` explains it."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from ..core.errors import UsageError
from ..core.options import suggestion
from .settings import NUMERICS, VERIFY

COMPILE = "compile"

COMMANDS = {
    COMPILE: "compile, check and run a model (what happens when no command is named)",
    "bench": "measure a pipeline against jax.jit",
    "tune": "measure on this machine what suits a model best, and remember it",
    "list": "list passes, rules, pipelines, backends, targets, plugins",
    "help": "explain a pass, a backend, a pipeline, or a command",
    "plugins": "show how every plugin fared, with the tracebacks of those that failed",
    "new-plugin": "write the skeleton of a plugin package",
}

LISTS = {
    "passes": "pass",
    "rules": "rule",
    "pipelines": "pipeline",
    "backends": "backend",
    "targets": "target",
    "composites": "composite",
    "forms": "form family",
    "compile-options": "compile options",
    "precision-policies": "precision policy",
    "plugins": "plugin",
}
"""What `xlapass list` takes, and what one of each is called."""

REPORTS = ("table", "json", "none")

_COMPILE_ABOUT = """\
Compile a JAX model with a pipeline of passes, run it, and compare it with plain JAX.

MODEL is an ordinary Python file that defines

    model            a function, a Flax nnx or Equinox module, a Flax linen (module, variables), or an xlapass.Program
    example_inputs   a tuple with one entry per argument, or a function that returns one
    calibration_data for int8: an iterable of such tuples, a function that returns one, or a path

or an importable package.module:NAME.
"""

_COMPILE_MORE = """\
examples:
  xlapass model.py                              compile for this CPU, run, compare with plain JAX
  xlapass --pipeline=gpu -o model.jax_export model.py
                                                write a file that jax.export.deserialize reads
  xlapass --pipeline=gpu --device h100 --emit=ptx model.py
                                                compile for a GPU that is not here
  xlapass --input 'f32[batch,28,28,1]' model.py any batch size: a name is a dynamic dimension
  xlapass --pipeline=inline,simplify,dead-code --print-ir=changed model.py
                                                watch three passes work
  xlapass --dry-run --pipeline=cpu              show what would run, and who brought it
  xlapass --explain NAME model.py               why a rule did not apply
  xlapass --tune --tune-budget=2m model.py      let measurements on this machine decide

commands:
{commands}

A project's own defaults stand in its pyproject.toml:
  [tool.xlapass]
  pipeline = "cpu"
  numerics = "reassociating"
  plugins = ["my_package.my_plugin"]

exit status: 0 done, 1 the model could not be compiled, 2 used wrongly, 130 interrupted
"""

_BENCH_MORE = """\
Both are compiled in one process and run in turns, so that a machine that gets busy slows both. The ratio is of one run
of jax.jit to one run of the pipeline next to it: above 1, the pipeline is faster.

examples:
  xlapass bench model.py
  xlapass bench --pipeline=inline,simplify --seconds=20 model.py
"""

_TUNE_MORE = """\
Each form of each distinct operation is timed, and so are options of XLA for the whole program. What was measured is
kept in a file, for xlapass.jit(tune=True) and xlapass --tune; a second run measures only what the file does not know.

examples:
  xlapass tune model.py
  xlapass tune --tune-budget=10m --tune-file=tuned.json model.py
"""

_LIST_MORE = """\
examples:
  xlapass list passes               every pass, with the plugin that brings it
  xlapass list passes inline        the options of one
  xlapass list targets              the devices that can be compiled for

All but the rules are listed without importing what they name. Rules have no list but themselves, so their modules are.
"""


class Parser(argparse.ArgumentParser):
    """Reports mistakes as `UsageError`, with a suggestion."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, add_help=False, **keywords)

    def error(self, message: str) -> NoReturn:
        """What argparse calls when it does not understand."""
        raise UsageError(message, hint=f"{self.prog} --help explains")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Parses; an unknown option gets a suggestion."""
        parsed, unknown = self.parse_known_intermixed_args(argv)
        if not unknown:
            return parsed
        command = next((word for word in argv if word in COMMANDS), None)
        if command is not None and not self.prog.endswith(command):
            raise UsageError(f"the command {command!r} must come first", hint=f"write xlapass {command} ...")
        option = unknown[0].partition("=")[0]
        if option.startswith("-"):
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            raise UsageError(f"there is no option {option!r}", hint=suggestion(option, known))
        self.error(f"one argument too many: {option!r}")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def compile_parser() -> Parser:
    """``xlapass [options] MODEL``."""
    commands = "\n".join(f"  xlapass {name:<12} {about}" for name, about in COMMANDS.items())
    parser = Parser(
        prog="xlapass",
        usage="xlapass [options] MODEL\n       xlapass COMMAND ...",
        description=_COMPILE_ABOUT,
        epilog=_COMPILE_MORE.format(commands=commands),
    )
    _add_model(parser, optional=True)
    _add_pipeline(parser)
    checks = parser.add_argument_group("checking")
    checks.add_argument("--verify", choices=VERIFY, help="what is checked after every pass (default: structure)")
    checks.add_argument("--no-run", action="store_true", help="do not run the result and compare it with plain JAX")
    checks.add_argument(
        "--no-verify", action="store_true", help="write the file even if the backend's own check of it fails"
    )
    checks.add_argument(
        "--check-for",
        metavar="PLACE",
        action="append",
        default=[],
        help="say what of the file would not run there, such as edgetpu or micro (TFLite); repeatable",
    )
    checks.add_argument(
        "--explain", metavar="RULE", help="run the passes, and say where a rule almost applied and why not"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "-o", "--output", metavar="FILE", help="write the artifact there, or the stage that --emit names"
    )
    results.add_argument(
        "--emit", metavar="STAGE", help="write a stage: jaxpr, stablehlo, hlo, llvm, ptx (GPU), asm (CPU)"
    )
    results.add_argument("--opset", type=int, metavar="N", help="version of the operators in the file (ONNX)")
    for what in ("input", "output"):
        results.add_argument(
            f"--{what}-names", type=_names, metavar="NAME,...", help=f"what the file calls its {what}s, in order (ONNX)"
        )
    _add_report(results)
    results.add_argument(
        "--print-ir", metavar="WHEN[:PASS]", help="show programs before or after passes, or what changed"
    )
    results.add_argument("--dry-run", action="store_true", help="show the passes that would run, and run none")
    _add_common(parser)
    return parser


def _names(text: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(part.strip() for part in text.split(","))


def bench_parser() -> Parser:
    """``xlapass bench MODEL``."""
    parser = Parser(
        prog="xlapass bench",
        usage="xlapass bench [options] MODEL",
        description="Measure a pipeline against jax.jit, side by side.",
        epilog=_BENCH_MORE,
    )
    _add_model(parser)
    _add_pipeline(parser)
    measuring = parser.add_argument_group("measuring")
    measuring.add_argument("--seconds", type=_positive, default=10.0, help="how long to measure (default: 10)")
    measuring.add_argument("--report", metavar="HOW", default="table", help="table (default), json or json:FILE")
    _add_common(parser)
    return parser


def tune_parser() -> Parser:
    """``xlapass tune MODEL``."""
    parser = Parser(
        prog="xlapass tune",
        usage="xlapass tune [options] MODEL",
        description="Measure on this machine which forms of its operations and which options of XLA suit a model best.",
        epilog=_TUNE_MORE,
    )
    _add_model(parser)
    _add_pipeline(parser)
    _add_report(parser.add_argument_group("results"))
    _add_common(parser)
    return parser


def list_parser() -> Parser:
    """``xlapass list KIND [NAME]``."""
    parser = Parser(
        prog="xlapass list",
        usage="xlapass list KIND [NAME]",
        description="List what the plugins bring; with a name, explain that one.",
        epilog=_LIST_MORE,
    )
    parser.add_argument("kind", metavar="KIND", help=", ".join(LISTS))
    parser.add_argument("name", metavar="NAME", nargs="?", help="explain this one")
    _add_common(parser)
    return parser


def help_parser() -> Parser:
    """``xlapass help [NAME]``."""
    parser = Parser(
        prog="xlapass help",
        usage="xlapass help [NAME]",
        description="Explain a pass, rule, pipeline, backend, target or plugin, or show the help of a command.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="what to explain")
    _add_common(parser)
    return parser


def plugins_parser() -> Parser:
    """``xlapass plugins``."""
    parser = Parser(
        prog="xlapass plugins",
        usage="xlapass plugins",
        description="Show how every plugin fared and what it brings, with the tracebacks of those that failed.",
    )
    _add_common(parser)
    return parser


def new_plugin_parser() -> Parser:
    """``xlapass new-plugin NAME``."""
    parser = Parser(
        prog="xlapass new-plugin",
        usage="xlapass new-plugin NAME [FOLDER]",
        description="Write a plugin package with a pass and a passing test, ready to be installed with pip.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the package, such as my-passes")
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", default=".", help="where its folder is made (default: here)"
    )
    _add_general(parser)
    return parser


PARSERS = {
    COMPILE: compile_parser,
    "bench": bench_parser,
    "tune": tune_parser,
    "list": list_parser,
    "help": help_parser,
    "plugins": plugins_parser,
    "new-plugin": new_plugin_parser,
}
"""The parser of each command."""


def _add_model(parser: Parser, optional: bool = False) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "model", metavar="MODEL", nargs="?" if optional else None, help="file.py, file.py:NAME or module:NAME"
    )
    group.add_argument("--entry", metavar="NAME", help="name of the model in the file (default: model)")
    group.add_argument(
        "--input",
        metavar="TYPE",
        action="append",
        default=[],
        help="type of an argument in place of example_inputs, such as f32[1,224,224,3] or i32[batch,128]: "
        "random numbers, names are dynamic sizes; once for each argument",
    )
    group.add_argument(
        "--dynamic",
        metavar="SHAPE",
        action="append",
        default=[],
        help="dynamic sizes of example_inputs, such as 'batch, ...': once for all arrays, or once for each argument",
    )
    group.add_argument(
        "--calibrate",
        metavar="PATH",
        help="typical inputs in place of calibration_data, for int8: an .npz or .npy file, a folder of such, or a "
        "calibration file (.json)",
    )


def _add_pipeline(parser: Parser) -> None:
    group = parser.add_argument_group("pipeline")
    group.add_argument(
        "--pipeline",
        metavar="PASSES",
        help="name of a pipeline (cpu, gpu, ...), or passes: inline,simplify{only=...},...",
    )
    group.add_argument("--device", metavar="NAME", help="what to compile for, such as h100; xlapass list targets")
    group.add_argument(
        "--backend", metavar="NAME{...}", help="the backend in place of the pipeline's, with its options"
    )
    group.add_argument("--numerics", choices=NUMERICS, help="the loosest change to results allowed (default: lossy)")
    group.add_argument("--skip", metavar="PASS", action="append", default=[], help="leave a pass out; repeatable")
    group.add_argument("--stop-after", metavar="PASS", help="run no pass after this one")
    group.add_argument(
        "--accuracy-target",
        metavar="METRIC>NUMBER",
        help="leave in float what int8 harms most, until cosine>0.999, sqnr>35, agreement>0.99 or module:function>1",
    )
    tuning = parser.add_argument_group("tuning")
    tuning.add_argument("--tune", action="store_true", help="let measurements on this machine decide, and keep them")
    tuning.add_argument(
        "--tune-budget", metavar="TIME", help="how long to measure, such as 90s or 5m (default: 60s); 0 only remembers"
    )
    tuning.add_argument(
        "--tune-file",
        metavar="FILE",
        help="keeps the measurements (default: $XLAPASS_TUNE_FILE, or in the user's cache)",
    )


def _add_report(group: Any) -> None:
    group.add_argument(
        "--report", metavar="HOW", default="table", help="table (default), json, json:FILE or none: what each pass did"
    )


def _add_common(parser: Parser) -> None:
    group = parser.add_argument_group("plugins")
    group.add_argument(
        "-p",
        dest="plugins",
        metavar="NAME",
        action="append",
        default=[],
        help="use a plugin module; no:NAME leaves one out",
    )
    group.add_argument("--strict-plugins", action="store_true", help="a plugin that fails is an error, not a warning")
    _add_general(parser)


def _add_general(parser: Parser) -> None:
    group = parser.add_argument_group("general")
    group.add_argument("-q", "--quiet", action="store_true", help="show results and errors only")
    group.add_argument("--debug", action="store_true", help="show full tracebacks")
    group.add_argument("-h", "--help", action="help", help="show this")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
