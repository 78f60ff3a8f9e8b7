"""Every private name of JAX that is used, probed: a release that moves one fails here first."""

import ast
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src import core as private_core
from jax.extend import core as jex_core
from xlapass.core import _compat

ROOT = Path(_compat.__file__).parents[1]
X = np.asarray([1.0, -2.0], np.float32)


def packages():
    folders = [ROOT / name for name in ("core", "passes", "backends", "plugins", "cli")]
    return [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_private_modules_are_imported_in_one_place():
    private = {file for file in packages() for name in imported_modules(file) if name.startswith(("jax._", "jaxlib"))}
    assert private == {ROOT / "core" / "_compat.py"}


def test_evaluating_keeps_name_stacks():
    def fn(x):
        with jax.named_scope("here"):
            return jnp.sin(x)

    closed = jax.make_jaxpr(fn)(X)
    again = jax.make_jaxpr(lambda x: _compat.eval_jaxpr(closed.jaxpr, closed.consts, x))(X)
    assert _compat.name_stack(again.eqns[0].source_info) == "here"
    assert [np.asarray(r).tolist() for r in _compat.eval_jaxpr(closed.jaxpr, closed.consts, X)] == [jnp.sin(X).tolist()]


def test_dead_code():
    closed = jax.make_jaxpr(lambda x, y: (jnp.sin(x), jnp.cos(y)))(X, X)
    smaller, used = _compat.eliminate_dead_code(closed, [True, False])
    assert used == [True, False] and [e.primitive.name for e in smaller.eqns] == ["sin"]
    smaller, used = _compat.eliminate_dead_code(closed, [True, False], instantiate=True)
    assert used == [True, True] and len(smaller.jaxpr.invars) == 2


def test_effects():
    def fn(x):
        jax.debug.print("{}", x)
        return x

    jaxpr = jax.make_jaxpr(fn)(X).jaxpr
    effects = _compat.jaxpr_effects(jaxpr.constvars, jaxpr.invars, jaxpr.outvars, jaxpr.eqns)
    assert effects == jaxpr.effects and len(effects) == 1
    assert not _compat.has_reference_effects(jaxpr)
    assert not any(map(_compat.is_ordered, jaxpr.effects))
    ordered = jax.make_jaxpr(lambda x: jax.debug.print("{}", x, ordered=True))(X)
    assert all(map(_compat.is_ordered, ordered.effects)) and ordered.effects

    def with_reference(x):
        ref = jax.new_ref(x)
        ref[0] = 1.0
        return ref[...]

    assert _compat.has_reference_effects(jax.make_jaxpr(with_reference)(X).jaxpr)


def test_tracing_contexts():
    closed = jax.make_jaxpr(lambda x: jnp.sin(x) + 1)(X)
    first, second = (eqn.ctx for eqn in closed.eqns)
    assert _compat.same_placement(first, second)
    assert _compat.same_placement(first, _compat.current_eqn_context())
    with _compat.in_eqn_context(first), _compat.in_eqn_context(None):
        assert jnp.sin(0.0) == 0
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    assert not _compat.same_mesh(mesh, first)
    assert _compat.same_mesh(jax.sharding.AbstractMesh((), ()), first)


def test_placement_tells_metadata_apart():
    from jax.experimental.xla_metadata import set_xla_metadata

    def fn(x):
        with set_xla_metadata(key="value"):
            return jnp.sin(x) + 1

    plain = jax.make_jaxpr(jnp.sin)(X).eqns[0].ctx
    assert not _compat.same_placement(jax.make_jaxpr(fn)(X).eqns[0].ctx, plain)


def test_source_locations():
    def named(x):
        return jnp.sin(x)

    info = jax.make_jaxpr(named)(X).eqns[0].source_info
    assert _compat.user_location(info).startswith(f"{__file__}:")
    assert _compat.user_location(info).endswith("named)")
    file, line, function = next(iter(_compat.user_frames(info)))
    assert file == __file__ and line > 1 and function.endswith("named")
    nowhere = _compat.new_source_info()
    assert _compat.user_location(nowhere) is None and _compat.name_stack(nowhere) == ""


def test_locations_leave_out_this_package():
    from xlapass.core.tracing import trace

    assert _compat.user_location(trace(jnp.sin, X).jaxpr.eqns[0].source_info) is None
    location = _compat.user_location(trace(lambda x: jnp.sin(x), X).jaxpr.eqns[0].source_info)
    assert location.startswith(f"{__file__}:")


def test_name_stacks_nest():
    def fn(x):
        with jax.named_scope("outer"):
            return jax.jit(lambda v: inner(v))(x)

    def inner(v):
        with jax.named_scope("inner"):
            return jnp.sin(v)

    (call,) = jax.make_jaxpr(fn)(X).eqns
    (sin,) = call.params["jaxpr"].eqns
    assert _compat.name_stack(sin.source_info) == "inner"
    assert _compat.name_stack(_compat.with_name_stack_prefix(sin.source_info, call.source_info)) == "outer/inner"


def test_sizes_of_scans():
    def fn(x):
        return lax.scan(lambda c, row: ((c[0] + row * x[0], c[1] + 1), row), (x[0] * 2, 0), X)

    eqn = jax.make_jaxpr(fn)(X).eqns[-1]
    assert _compat.scan_sizes(eqn.params) == (1, 2)


def test_shardings_that_say_nothing():
    (call,) = jax.make_jaxpr(lambda x: jax.jit(jnp.sin)(x))(X).eqns
    assert all(map(_compat.is_unspecified_sharding, call.params["in_shardings"]))
    assert not _compat.is_unspecified_sharding(jax.devices()[0])


def test_tracers():
    seen = []
    jax.make_jaxpr(lambda x: seen.append(x) or x)(X)
    assert _compat.is_tracer(seen[0]) and not _compat.is_tracer(X)


def test_wide_types():
    assert not _compat.x64_enabled()
    with jax.enable_x64(True):
        assert _compat.x64_enabled()


@pytest.mark.parametrize(
    ("text", "size", "value"), [("n", 3, 3), ("2*n + 1", 3, 7), ("n*m", 4, 16), ("floordiv(n, 2)", 5, 2)]
)
def test_symbolic_sizes(text, size, value):
    (dimension,) = jax.export.symbolic_shape(text)
    assert _compat.evaluate_dimension(dimension, size) == value
    assert _compat.evaluate_dimension(5, size) == 5


def test_public_names_that_the_graph_stands_on():
    """Of `jax.extend.core`, which promises little."""
    closed = jax.make_jaxpr(lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x))(X)
    eqn = closed.eqns[-1]
    assert list(jex_core.jaxprs_in_params(eqn.params)) == [b.jaxpr for b in eqn.params["branches"]]
    rebuilt = jex_core.JaxprEqn(
        eqn.invars, eqn.outvars, eqn.primitive, eqn.params, eqn.effects, eqn.source_info, eqn.ctx
    )
    jaxpr = jex_core.Jaxpr(
        closed.jaxpr.constvars,
        closed.jaxpr.invars,
        closed.jaxpr.outvars,
        [*closed.eqns[:-1], rebuilt],
        closed.jaxpr.effects,
        closed.jaxpr.debug_info,
    )
    jex_core.check_jaxpr(jaxpr)
    assert issubclass(jex_core.JaxprTypeError, Exception) and issubclass(jex_core.DropVar, jex_core.Var)
    assert jex_core.Literal(np.float32(1), jax.core.ShapedArray((), np.dtype("float32"))).val == 1
    assert jex_core.Var(closed.in_avals[0]).aval == closed.in_avals[0]
    assert not jex_core.no_effects and jex_core.primitives.convert_element_type_p.name == "convert_element_type"
    assert private_core.Jaxpr is jex_core.Jaxpr
