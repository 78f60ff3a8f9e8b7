"""The text of a program at a stage of XLA's compilation: StableHLO, optimized HLO, LLVM IR, machine code.

XLA writes LLVM IR and object files when one compilation is given ``xla_dump_to``; a temporary folder receives them, and
what a stage needs is joined in a fixed order, so that the same program gives the same text.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import jax

from ...core.errors import CompileError, UsageError

STAGES = ("stablehlo", "hlo", "llvm", "asm", "ptx")

CompilerOptions: TypeAlias = Mapping[str, str | bool]

# What a dumped file's name starts with; the number counts the process's compilations, which is nobody's business.
_MODULE_PREFIX = re.compile(r"^module_\d+\.")

_LLVM_DEFINITION = re.compile(r"^define .*?@([^\s(]+)\(", re.MULTILINE)
_PTX_DEFINITION = re.compile(r"^\.visible \.entry ([^\s(]+)\(", re.MULTILINE)

_DISASSEMBLERS = ("objdump", "llvm-objdump")
_DISASSEMBLY_LIMIT_S = 120


def stage_text(
    lowered: jax.stages.Lowered, stage: str, *, platform: str = "cpu", compiler_options: CompilerOptions | None = None
) -> str:
    """Returns the text of ``lowered`` at ``stage``.

    Args:
      lowered: what ``jax.jit(f).lower(...)`` returned, for ``platform``.
      stage: one of ``STAGES``. ``stablehlo`` compiles nothing; ``hlo`` is XLA's optimized module; ``llvm`` is the
        optimized LLVM IR of all kernels; ``asm`` is the CPU's machine code, disassembled; ``ptx`` is for GPUs.
      platform: the platform that ``lowered`` is for: ``"cpu"`` or ``"cuda"``.
      compiler_options: per-compilation XLA options, as for ``lowered.compile``.

    Returns:
      The text, ending in a newline. Where XLA emitted no code of its own (a program of library calls only), ``llvm``,
      ``asm`` and ``ptx`` are one comment that says so.

    Raises:
      UsageError: there is no such stage, not for this platform, no disassembler is installed, or no such option.
      CompileError: XLA refuses the program.
    """
    _check(stage, platform)
    if stage == "stablehlo":
        return _ended(str(lowered.as_text(dialect="stablehlo")))
    if stage == "hlo":
        return _ended(_compile(lowered, compiler_options).as_text() or "")
    disassembler = _disassembler() if stage == "asm" else ""
    with tempfile.TemporaryDirectory(prefix="xlapass-stage-") as folder:
        dump = Path(folder, "dump")
        _compile(lowered, {**(compiler_options or {}), **dump_options(dump)})
        if stage == "asm":
            return disassembled(dump, disassembler)
        return dumped_llvm(dump) if stage == "llvm" else dumped_ptx(dump)


def dump_options(folder: Path) -> dict[str, str | bool]:
    """Returns the options with which one compilation writes its LLVM IR, PTX and object files into ``folder``.

    Since JAX 0.12 only emitters that match the pattern write theirs. It matches all; the folder's unique name in it
    keeps a persistent compilation cache from answering without compiling: its key has the pattern, not the folder.
    """
    return {"xla_dump_to": str(folder), "xla_dump_emitter_re": f".*|{re.escape(str(folder))}"}


def dumped_llvm(folder: Path) -> str:
    """Returns the optimized LLVM IR that XLA dumped into ``folder``, its modules ordered by the kernels they define."""
    return _joined(folder, "*.ir-with-opt.ll", _LLVM_DEFINITION, comment=";")


def dumped_ptx(folder: Path) -> str:
    """Returns the PTX that XLA dumped into ``folder``, its modules ordered by the kernels they define."""
    return _joined(folder, "*.ptx", _PTX_DEFINITION, comment="//")


def disassembled(folder: Path, disassembler: str) -> str:
    """Returns the machine code of the object files that XLA dumped into ``folder``, as ``disassembler`` prints it."""
    texts = []
    for path in sorted(folder.glob("*.o")):
        short = path.with_name(_MODULE_PREFIX.sub("", path.name))  # the disassembler prints the file's name
        path.rename(short)
        result = subprocess.run(
            [disassembler, "-d", "-r", "--no-show-raw-insn", short.name],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_DISASSEMBLY_LIMIT_S,
        )
        if result.returncode != 0:
            raise CompileError(f"{disassembler} could not read XLA's object file: {result.stderr.strip()}")
        texts.append(result.stdout.strip("\n") + "\n")
    return "\n".join(texts) or _nothing("#")


def _check(stage: str, platform: str) -> None:
    if stage not in STAGES:
        near = difflib.get_close_matches(stage, STAGES, n=1)
        suggestion = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"there is no stage {stage!r}", hint=f"{suggestion}stages: {', '.join(STAGES)}")
    if stage == "ptx" and platform == "cpu":
        raise UsageError(
            "a program compiled for the CPU has no PTX",
            hint="compile for a GPU (--pipeline=gpu --device h100), or emit asm",
        )
    if stage == "asm" and platform != "cpu":
        raise UsageError(f"the stage 'asm' is for the CPU, not for {platform}", hint="emit ptx")


def _disassembler() -> str:
    for name in _DISASSEMBLERS:
        if shutil.which(name):
            return name
    raise UsageError(
        "the stage 'asm' needs a disassembler, since XLA writes object files only, and none was found "
        f"(looked for {', '.join(_DISASSEMBLERS)})",
        hint="install binutils or LLVM, or emit llvm",
    )


def _compile(lowered: jax.stages.Lowered, options: CompilerOptions | None) -> jax.stages.Compiled:
    try:
        return lowered.compile(compiler_options=dict(options or {}))
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            raise UsageError(f"XLA does not know a compiler option: {error}") from error
        raise CompileError(f"XLA could not compile the program: {error}") from error


def _joined(folder: Path, pattern: str, definition: re.Pattern[str], comment: str) -> str:
    """The files that define kernels, by the kernels' names: XLA numbers the files in the order in which threads end."""
    kernels = {}
    for path in folder.glob(pattern):
        text = path.read_text(errors="replace").strip("\n")
        if names := definition.findall(text):
            kernels[f"{comment} kernels: {', '.join(names)}\n{text}\n"] = names
    return "\n".join(sorted(kernels, key=lambda text: (kernels[text], text))) or _nothing(comment)


def _nothing(comment: str) -> str:
    return (
        f"{comment} XLA emitted no kernel of its own for this program: it only calls libraries, or computes nothing.\n"
    )


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"
