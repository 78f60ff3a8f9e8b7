"""Concatenations, padding and reversing."""

from __future__ import annotations

from ...core.node import Value
from ...core.patterns import Op, op, same_value, var
from ...core.rewrite import Build, Match, Rule
from .slicing import bounds, slice_of

x, y, value = var("x"), var("y"), var("value")


def _flat(match: Match) -> list[Value]:
    """The operands: empty ones left out, and concatenations that nothing else reads replaced by what they join."""
    axis = match.root.params["dimension"]
    operands: list[Value] = []
    for operand in match.root.inputs:
        node, size = operand.producer, operand.aval.shape[axis]
        if (
            node is not None
            and node.name == "concatenate"
            and node.params["dimension"] == axis
            and len(operand.uses) == 1
        ):
            operands.extend(node.inputs)
        elif not (isinstance(size, int) and size == 0):
            operands.append(operand)
    return operands or match.root.inputs[:1]


def _is_not_flat(match: Match) -> str | None:
    return "no operand is empty, or a concatenation itself" if _flat(match) == match.root.inputs else None


def _concatenate(match: Match, operands: list[Value]) -> Value:
    return operands[0] if len(operands) == 1 else match.like(match.root, *operands)


def _runs(match: Match) -> list[list[Value]]:
    """The operands in order, adjacent slices of one value together."""
    axis = match.root.params["dimension"]
    runs: list[list[Value]] = []
    for operand in match.root.inputs:
        if runs and _continues(runs[-1][-1], operand, axis):
            runs[-1].append(operand)
        else:
            runs.append([operand])
    return runs


def _continues(left: Value, right: Value, axis: int) -> bool:
    first, second = left.producer, right.producer
    if first is None or second is None or first.name != "slice" or second.name != "slice":
        return False
    one, other = bounds(first), bounds(second)
    if first.inputs[0] is not second.inputs[0] or one is None or other is None:
        return False
    before, after = one[axis], other[axis]
    if before is None or after is None or [*one[:axis], *one[axis + 1 :]] != [*other[:axis], *other[axis + 1 :]]:
        return False
    return before[2] == after[2] == 1 and before[1] == after[0]


def _has_adjacent_slices(match: Match) -> str | None:
    joined = len(_runs(match)) < len(match.root.inputs)
    return None if joined else "no two neighbours are adjacent slices of one value"


def _join(match: Match) -> Value:
    return _concatenate(match, [_joined(match, run) for run in _runs(match)])


def _joined(match: Match, run: list[Value]) -> Value:
    first, last = run[0].producer, run[-1].producer
    if len(run) == 1 or first is None or last is None:
        return run[0]
    axis, every, end = match.root.params["dimension"], bounds(first), bounds(last)
    assert every is not None and end is not None
    left, right = every[axis], end[axis]
    assert left is not None and right is not None
    every[axis] = (left[0], right[1], 1)
    return slice_of(match, first.inputs[0], every)


def _pads_nothing(match: Match) -> str | None:
    nothing = all(amount == 0 for axis in match.root.params["padding_config"] for amount in axis)
    return None if nothing else "it pads"


def _pads_alike(match: Match) -> str | None:
    for low, high, interior in (*match.root.params["padding_config"], *match["inner"].params["padding_config"]):
        if not (isinstance(low, int) and isinstance(high, int)) or low < 0 or high < 0 or interior:
            return "one of the two crops, or pads between the elements"
    return None if same_value(match.root.inputs[1], match["inner"].inputs[1]) else "they pad with different values"


def _pad_once(match: Match) -> Value:
    both = zip(match.root.params["padding_config"], match["inner"].params["padding_config"], strict=True)
    config = tuple((a[0] + b[0], a[1] + b[1], 0) for a, b in both)
    return match.like(match.root, match["x"], match.root.inputs[1], padding_config=config)


def _reverses_nothing(match: Match) -> str | None:
    sizes = [match["x"].aval.shape[axis] for axis in match.root.params["dimensions"]]
    return None if all(isinstance(size, int) and size <= 1 for size in sizes) else "it reverses"


def _reverses_the_same(match: Match) -> str | None:
    same = set(match.root.params["dimensions"]) == set(match["inner"].params["dimensions"])
    return None if same else "the two reverse different axes"


RULES = [
    Rule("concatenate-one", op.concatenate(x), x),
    Rule(
        "concatenate-flat",
        Op(("concatenate",)),
        Build(lambda match: _concatenate(match, _flat(match))),
        _is_not_flat,
    ),
    Rule("concatenate-slices", Op(("concatenate",)), Build(_join), _has_adjacent_slices),
    Rule("pad-nothing", op.pad(x, value), x, _pads_nothing),
    Rule("pad-pad", op.pad(op.pad(x, value, name="inner"), y), Build(_pad_once), _pads_alike),
    Rule("reverse-nothing", op.rev(x), x, _reverses_nothing),
    Rule("reverse-back", op.rev(op.rev(x, name="inner")), x, _reverses_the_same),
]
