"""Transposes at the program's inputs and outputs become part of its interface."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core.graph import Graph
from ...core.pass_ import PassResult
from ...core.program import Program
from .permutation import Permutation, compose, inverse
from .sinking import transposed_from

Permutations = list[Permutation | None]


def convert_interface(result: PassResult) -> PassResult:
    """Drops transposes that are all that reads an input, or that make an output, and records how the types changed."""
    program = result.program
    graph = Graph(program.jaxpr, provenance=program.provenance)
    inputs: Permutations = [_convert_input(graph, index) for index in range(len(graph.inputs))]
    outputs: Permutations = [_convert_output(graph, index) for index in range(len(graph.outputs))]
    if not any((*inputs, *outputs)):
        return result
    converted = program.replace(
        jaxpr=graph.to_closed(),
        provenance=graph.made_by,
        input_permutations=_joined(program.input_permutations, inputs),
        output_permutations=_joined(program.output_permutations, outputs),
        examples=_examples(program, inputs),
    )
    return dataclasses.replace(result, program=converted)


def _convert_input(graph: Graph, index: int) -> Permutation | None:
    value = graph.inputs[index]
    found = {tuple(u.params["permutation"]) if u.name == "transpose" else None for u in value.users}
    perm = found.pop() if len(found) == 1 else None
    if perm is None or len(perm) < 3:
        return None
    aval = value.aval.update(shape=tuple(value.aval.shape[axis] for axis in perm))
    readers = [node.outputs[0] for node in value.users]
    new = graph.retype_input(index, aval)
    for reader in readers:
        assert reader.producer is not None
        graph.replace(reader, new)
        graph.erase(reader.producer)
    return perm


def _convert_output(graph: Graph, index: int) -> Permutation | None:
    found = transposed_from(graph.outputs[index])
    if found is None or len(found[1]) < 3:
        return None
    node = graph.outputs[index].producer
    assert node is not None
    graph.set_operand(graph.terminator, index, found[0])
    graph.erase_dead(node)
    return inverse(found[1])


def _joined(earlier: tuple[Any, ...], later: Permutations) -> tuple[Permutation | None, ...]:
    before: tuple[Any, ...] = earlier or (None,) * len(later)
    pairs = zip(before, later, strict=True)
    return tuple(b if a is None else a if b is None else compose(a, b) for b, a in pairs)


def _examples(program: Program, inputs: Permutations) -> tuple[Any, ...] | None:
    if program.examples is None:
        return None
    changed = dataclasses.replace(program, input_permutations=tuple(inputs))
    return tuple(changed.as_converted(program.examples))
