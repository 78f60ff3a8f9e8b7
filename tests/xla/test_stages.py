"""The text of a program at each stage of XLA's CPU compilation."""

import functools

import jax
import jax.numpy as jnp
import pytest
from xlapass.backends.xla import stages
from xlapass.backends.xla.stages import STAGES, stage_text
from xlapass.core.errors import CompileError, UsageError


@functools.cache
def lowered():
    def wave(x):
        return jnp.sin(x) * 2 + jnp.flip(x)

    return jax.jit(wave).lower(jnp.ones(128, jnp.float32))


needs_objdump = pytest.mark.skipif(
    not any(map(stages.shutil.which, stages._DISASSEMBLERS)), reason="no disassembler is installed"
)


def test_stablehlo():
    text = stage_text(lowered(), "stablehlo")
    assert "stablehlo.sine" in text
    assert text.endswith("}\n")


def test_hlo_is_optimized():
    text = stage_text(lowered(), "hlo")
    assert text.startswith("HloModule jit_wave")
    assert "fusion" in text


def test_llvm():
    text = stage_text(lowered(), "llvm")
    assert text.startswith("; kernels: ")
    assert "define " in text


@needs_objdump
def test_asm():
    text = stage_text(lowered(), "asm")
    assert text.startswith("jit_wave.obj-file")
    assert "Disassembly of section" in text


@needs_objdump
def test_the_same_program_gives_the_same_text():
    for stage in ("hlo", "llvm", "asm"):
        assert stage_text(lowered(), stage) == stage_text(lowered(), stage)


@pytest.mark.parametrize("stage", ["llvm", pytest.param("asm", marks=needs_objdump)])
def test_no_kernels(stage):
    identity = jax.jit(lambda x: x).lower(jnp.ones(3))
    assert "XLA emitted no kernel of its own" in stage_text(identity, stage)


def test_a_persistent_cache_does_not_hide_the_code(tmp_path):
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    old = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        fresh = jax.jit(lambda x: jnp.cos(x) * 3).lower(jnp.ones(96))  # nothing of it is in memory
        stage_text(fresh, "hlo")
        assert any(tmp_path.iterdir())
        assert "define " in stage_text(fresh, "llvm")
        assert "define " in stage_text(fresh, "llvm")
    finally:
        for name, value in old.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_no_temporary_folders_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.tempfile, "tempdir", str(tmp_path))
    stage_text(lowered(), "llvm")
    assert list(tmp_path.iterdir()) == []


def test_compiler_options_arrive():
    fast = stage_text(lowered(), "llvm", compiler_options={"xla_cpu_enable_fast_math": True})
    assert fast != stage_text(lowered(), "llvm")


def test_unknown_compiler_option():
    with pytest.raises(UsageError, match="xla_no_such_option"):
        stage_text(lowered(), "hlo", compiler_options={"xla_no_such_option": True})


def test_ptx_of_a_cpu_program():
    with pytest.raises(UsageError, match="no PTX") as caught:
        stage_text(lowered(), "ptx")
    assert "--device" in str(caught.value)


def test_asm_of_a_gpu_program():
    with pytest.raises(UsageError, match="emit ptx"):
        stage_text(lowered(), "asm", platform="cuda")


def test_misspelt_stage():
    with pytest.raises(UsageError, match="did you mean 'llvm'") as caught:
        stage_text(lowered(), "lvm")
    assert all(stage in str(caught.value) for stage in STAGES)


def test_no_disassembler(monkeypatch):
    monkeypatch.setattr(stages.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="needs a disassembler") as caught:
        stage_text(lowered(), "asm")
    assert "binutils" in str(caught.value)


def test_xla_refuses(monkeypatch):
    class Refused:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("INTERNAL: too hard")

    with pytest.raises(CompileError, match="too hard"):
        stage_text(Refused(), "hlo")
