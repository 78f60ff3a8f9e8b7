"""A graph that one pass leaves to the next is the graph that would be built from the jaxpr."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax
from jax.extend import core as jex_core
from programs import assert_identical, examples, programs
from xlapass.core.conversion import settle
from xlapass.core.errors import PassError
from xlapass.core.graph import Graph
from xlapass.core.instruments.structure import check_closed
from xlapass.core.manager import Instrument, PassManager
from xlapass.core.pass_ import GraphKeeper, GraphPass
from xlapass.core.plugins import load_registry
from xlapass.core.tracing import trace
from xlapass.passes.common_subexpressions import CommonSubexpressions
from xlapass.passes.dead_code import DeadCode
from xlapass.passes.fold_constants import FoldConstants
from xlapass.passes.inline import Inline
from xlapass.passes.simplify import Simplify

REGISTRY = load_registry(discover=False)
PASSES = (Inline(), Simplify(), FoldConstants(), CommonSubexpressions(), DeadCode(), Simplify())


class BuiltAnew(Instrument):
    """Adds a pass that throws the kept graph away after every pass, by taking it for nothing."""

    def after(self, event):
        event.context.graphs.take(event.result.program)


def nested(x, n):
    def body(carry, row):
        def inner(state):
            i, z = state
            return i + 1, jnp.where(z > 0, z * 1.0, z + row.sum()) + 0.0

        return lax.while_loop(lambda state: state[0] < n, inner, (0, carry))[1], carry * 2.0

    last, rows = lax.scan(body, x, jnp.stack([x, x]) * 1.0)
    return lax.cond(n > 1, lambda: last * 1.0, lambda: -jnp.negative(last)), rows, jax.jit(jnp.tanh)(x) * 1.0


def uses_of(graph):
    """Every use of every value, regions included, by the order of things."""
    found = []
    for region in graph.walk():
        number = {id(node): index for index, node in enumerate([*region.nodes(), region.terminator])}
        values = [*region.inputs, *region.constants, *(o for node in region.nodes() for o in node.outputs)]
        found.append([sorted((number[id(node)], index) for node, index in v.uses) for v in values])
        found.append([(node.name, len(node.regions)) for node in region.nodes()])
    return found


def test_a_settled_graph_counts_as_made_from_the_result():
    closed = jax.make_jaxpr(nested)(np.ones(2, np.float32), 3)
    graph = Graph(closed)
    for region in graph.walk():
        for node in region.nodes():
            if node.name == "mul":
                region.replace(node.outputs[0], node.inputs[0])
                region.erase(node)
                break
    result = settle(graph)
    check_closed(result)
    assert result is not closed and not graph.edited
    assert graph.to_closed() is result and settle(graph) is result
    assert uses_of(graph) == uses_of(Graph(result))


def test_a_settled_graph_can_be_edited_further_in_its_bodies():
    graph = Graph(jax.make_jaxpr(nested)(np.ones(2, np.float32), 3))
    texts = [str(settle(graph))]
    for _ in range(3):
        region = next(r for r in graph.walk() if any(node.name == "add" for node in r.nodes()))
        node = next(node for node in region.nodes() if node.name == "add")
        region.emit(node.primitive, node.inputs, node.params, before=node)
        assert graph.edited
        texts.append(str(settle(graph)))
        check_closed(graph.to_closed())
    assert len(set(texts)) == 4


def test_constants_that_nothing_reads_any_more_are_forgotten():
    table = jnp.arange(3.0)
    graph = Graph(jax.make_jaxpr(lambda x: x + table)(np.ones(3, np.float32)))
    (node,) = graph.nodes()
    graph.replace(node.outputs[0], graph.inputs[0])
    graph.erase(node)
    assert settle(graph).consts == [] and graph.constants == []
    assert graph.constant(table).const is table and len(graph.constants) == 1


def test_nothing_is_kept_of_a_pass_that_raised():
    @dataclasses.dataclass(frozen=True)
    class Breaks(GraphPass):
        """Edits, and raises."""

        name = "breaks"

        def apply(self, graph, context):
            graph.erase_dead(graph.nodes()[-1])
            graph._touch()
            raise ValueError("halfway")

    program = trace(lambda x: (x * 2.0, jnp.tanh(x)), np.ones(3, np.float32))
    keeper = GraphKeeper()
    assert keeper.settle(keeper.take(program), program) is program
    taken = keeper.take(program)
    assert keeper.take(program) is not taken
    manager = PassManager([Breaks()], registry=REGISTRY)
    with pytest.raises(PassError, match="halfway"):
        manager.run(program)
    manager.pipeline = PassManager([DeadCode()], registry=REGISTRY).pipeline
    assert manager.run(program) is program


def test_a_program_of_before_keeps_its_provenance():
    """Rules name what they made in a dictionary of the graph, which goes on growing."""

    def turned(x):
        return jnp.transpose(jnp.transpose(x, (1, 2, 0)), (1, 0, 2)) + jax.jit(lambda y: -jnp.negative(y))(x[0, 0, 0])

    program = trace(turned, np.ones((2, 3, 3), np.float32))
    seen = []

    class Remembers(Instrument):
        def after(self, event):
            seen.append((event.before, dict(event.before.provenance)))

    PassManager(list(PASSES), registry=REGISTRY, instruments=[Remembers()]).run(program)
    assert any(provenance for _, provenance in seen)
    assert all(dict(before.provenance) == provenance for before, provenance in seen)


@settings(max_examples=examples(25), deadline=None)
@given(programs())
def test_passes_do_the_same_with_kept_graphs_as_with_new_ones(drawn):
    program = trace(lambda *args: jex_core.jaxpr_as_fun(drawn.jaxpr())(*args), *jax.tree_util.tree_leaves(drawn.args))
    kept = PassManager(list(PASSES), registry=REGISTRY).run(program)
    anew = PassManager(list(PASSES), registry=REGISTRY, instruments=[BuiltAnew()]).run(program)
    assert str(kept.jaxpr) == str(anew.jaxpr)
    check_closed(kept.jaxpr)
    leaves = jax.tree_util.tree_leaves(drawn.args)
    assert_identical(
        jax.jit(jex_core.jaxpr_as_fun(kept.jaxpr))(*leaves), jax.jit(jex_core.jaxpr_as_fun(anew.jaxpr))(*leaves)
    )
