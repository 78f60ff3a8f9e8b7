"""Bodies of ``tfl.while`` as functions: litert-converter 0.5 writes no loop whose body is a region."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

_CONSTANTS = frozenset({"arith.constant", "tfl.pseudo_const", "tfl.pseudo_qconst", "tfl.no_value"})
"""Copied into the body that reads them, so that weights stay constants there."""


def outline_loops(module: Any) -> int:
    """Replaces the regions of every ``tfl.while`` in a module by calls of new functions; returns how many loops."""
    from litert_converter.mlir import ir

    _sink_constants(module)
    # Inner loops first: the function of an outer one then holds them as calls already.
    loops = [op for function in module.body.operations for op in _operations(function) if op.name == "tfl.while"]
    with module.context, ir.Location.unknown():
        for number, loop in enumerate(loops):
            _outline(module, _closed(loop), number)
        for function in list(module.body.operations):
            if "private" in str(_attributes(function.operation).get("sym_visibility")):
                _copy_arguments_of_branches(function)
    return len(loops)


def _sink_constants(module: Any) -> None:
    """Puts the constants with which a branch is called into its function.

    The converter hands them over: weights are then copied at every run, and for kernels they are no constants.
    """
    functions = {_name(function): function.operation for function in module.body.operations}
    calls = [op for function in functions.values() for op in _operations(function) if op.name == "func.call"]
    count = collections.Counter(_callee(call) for call in calls)
    pending = [function for name, function in functions.items() if not count[name]]
    while pending:  # callers before those they call
        for call in [op for op in _operations(pending.pop()) if op.name == "func.call"]:
            function = functions[_callee(call)]
            if count[_callee(call)] == 1:
                _sink_into(function, call)
                pending.append(function)


def _sink_into(function: Any, call: Any) -> None:
    """Constant operands of a function's only call become constants in it, and cease to be arguments."""
    from litert_converter.mlir import ir

    block = function.regions[0].blocks[0]
    constant = [_producer(value) is not None for value in call.operands]
    if not any(constant) or "arg_attrs" in _attributes(function):
        return
    with function.context, ir.Location.unknown():
        for position, value in enumerate(call.operands):
            producer = _producer(value)
            if producer is not None:
                with ir.InsertionPoint.at_block_begin(block):
                    copy = producer.clone()
                block.arguments[position].replace_all_uses_with(copy.results[list(producer.results).index(value)])
        for position in reversed(range(len(constant))):
            if constant[position]:
                block.erase_argument(position)
        kept = [value for value, sunk in zip(call.operands, constant, strict=True) if not sunk]
        results = [value.type for value in call.results]
        kind = ir.FunctionType.get([value.type for value in kept], results)
        function.attributes["function_type"] = ir.TypeAttr.get(kind)
        with ir.InsertionPoint(call):
            narrower = ir.Operation.create("func.call", results=results, operands=kept, attributes=_attributes(call))
        for old, new in zip(call.results, narrower.results, strict=True):
            old.replace_all_uses_with(new)
        call.erase()


def _producer(value: Any) -> Any:
    """The constant that a value is, or None."""
    from litert_converter.mlir import ir

    owner = value.owner.operation if isinstance(value.owner, ir.Operation | ir.OpView) else None
    return owner if owner is not None and owner.name in _CONSTANTS else None


def _name(function: Any) -> str:
    return str(function.operation.attributes["sym_name"].value)


def _callee(call: Any) -> str:
    return str(call.attributes["callee"].value)


def _copy_arguments_of_branches(function: Any) -> None:
    """Lets branches read copies of the function's arguments: litert-converter 0.5 takes an argument for the first one.

    It does so in every function but the main one, silently.
    """
    from litert_converter.mlir import ir

    branches = [op for op in _operations(function) if op.name == "tfl.if"]
    copies: dict[Any, Any] = {}
    for branch in branches:
        block = function.operation.regions[0].blocks[0]
        for value in dict.fromkeys([*branch.operands, *(v for region in branch.regions for v in _captured(region))]):
            if value not in list(block.arguments):
                continue
            if value not in copies:
                with ir.InsertionPoint.at_block_begin(block):
                    copies[value] = _copy(value)
            for region in branch.regions:
                _replace_inside(region, value, copies[value])
            for position, operand in enumerate(branch.operands):
                if operand == value:
                    branch.operands[position] = copies[value]


def _copy(value: Any) -> Any:
    """The result of an operation that changes nothing, of a kind that the converter does not take away again."""
    from litert_converter.mlir import ir

    name = "tfl.logical_or" if str(value.type.element_type) == "i1" else "tfl.maximum"
    return ir.Operation.create(name, results=[value.type], operands=[value, value]).results[0]


def _operations(root: Any) -> Iterator[Any]:
    """The operations below ``root``, what stands inside one before it."""
    for region in root.operation.regions:
        for block in region.blocks:
            for op in list(block.operations):
                yield from _operations(op)
                yield op.operation


def _closed(loop: Any) -> Any:
    """The loop reading nothing from around it: constants are copied inside, other values are carried along."""
    from litert_converter.mlir import ir

    carried: list[Any] = []
    for region in loop.regions:
        for value in _captured(region):
            producer = _producer(value)
            if producer is not None:
                with ir.InsertionPoint.at_block_begin(region.blocks[0]):
                    copy = producer.clone()
                _replace_inside(region, value, copy.results[list(producer.results).index(value)])
            elif value not in carried:
                carried.append(value)
    return _with_carried(loop, carried) if carried else loop


def _with_carried(loop: Any, carried: list[Any]) -> Any:
    """A loop that passes further values from one round to the next unchanged."""
    from litert_converter.mlir import ir

    operands = [*loop.operands, *carried]
    with ir.InsertionPoint(loop):
        wider = ir.Operation.create(
            "tfl.while",
            results=[value.type for value in operands],
            operands=operands,
            attributes=_attributes(loop),
            regions=2,
        )
    for index, region in enumerate(loop.regions):
        block = region.blocks[0]
        block.append_to(wider.regions[index])
        arguments = [block.add_argument(value.type, ir.Location.unknown()) for value in carried]
        for value, argument in zip(carried, arguments, strict=True):
            _replace_inside(wider.regions[index], value, argument)
        if index == 1:  # the body returns them; the condition returns a truth value
            end = list(block.operations)[-1].operation
            with ir.InsertionPoint(end):
                ir.Operation.create("tfl.yield", operands=[*end.operands, *arguments])
            end.erase()
    for index, result in enumerate(loop.results):
        result.replace_all_uses_with(wider.results[index])
    loop.erase()
    return wider


def _outline(module: Any, loop: Any, number: int) -> None:
    """Moves both regions of a closed loop into functions, and calls them in their place."""
    from litert_converter.mlir import ir

    types = [value.type for value in loop.operands]
    for region, role in zip(loop.regions, ("condition", "body"), strict=True):
        block = region.blocks[0]
        end = list(block.operations)[-1].operation
        results = [value.type for value in end.operands]
        name = f"loop_{number}_{role}"
        attributes = {
            "sym_name": ir.StringAttr.get(name),
            "sym_visibility": ir.StringAttr.get("private"),
            "function_type": ir.TypeAttr.get(ir.FunctionType.get(types, results)),
        }
        with ir.InsertionPoint(module.body):
            function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        block.append_to(function.regions[0])
        with ir.InsertionPoint(end):
            ir.Operation.create("func.return", operands=list(end.operands))
        end.erase()
        caller = region.blocks.append(*types, arg_locs=[ir.Location.unknown()] * len(types))
        with ir.InsertionPoint(caller):
            callee = {"callee": ir.FlatSymbolRefAttr.get(name)}
            call = ir.Operation.create("func.call", results=results, operands=list(caller.arguments), attributes=callee)
            ir.Operation.create("tfl.yield", operands=list(call.results))


def _captured(region: Any) -> list[Any]:
    """The values that operations in a region read from outside of it, each once."""
    inside: set[Any] = set()
    read: list[Any] = []
    pending = [region]
    while pending:
        for block in pending.pop().blocks:
            inside.update(block.arguments)
            for op in block.operations:
                inside.update(op.operation.results)
                read.extend(op.operation.operands)
                pending.extend(op.operation.regions)
    return list(dict.fromkeys(value for value in read if value not in inside))


def _replace_inside(region: Any, old: Any, new: Any) -> None:
    for block in region.blocks:
        for op in block.operations:
            for index, operand in enumerate(op.operation.operands):
                if operand == old:
                    op.operation.operands[index] = new
            for inner in op.operation.regions:
                _replace_inside(inner, old, new)


def _attributes(operation: Any) -> dict[str, Any]:
    return {name: operation.attributes[name] for name in operation.attributes}
