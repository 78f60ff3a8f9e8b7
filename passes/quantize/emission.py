"""Puts quantizers into a graph: constants become integers, products take the form that kernels are found by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...core.graph import Graph
from ...core.node import Node, Value
from ..composites.hard_swish import RELU6
from ..fold_constants import as_constants
from .adaptive import AdaptiveRounding
from .arithmetic import Parameters, dequantize_array, quantize_array
from .composites import DEQUANTIZE, QUANTIZE, dequantized, parameters_of
from .dynamic import DYNAMIC_DOT, DYNAMIC_RANGE
from .operations import Activation, Operation, source
from .placement import Placement
from .product_forms import Form, dense, form_of
from .tables import Scheme, Table
from .weights import (
    Rounding,
    WeightObserver,
    balanced,
    bias_parameters,
    grouped,
    per_channel,
    per_tensor,
    quantize_bias,
    room_for_bias,
    shift_of_mean,
)

Array = np.ndarray[Any, Any]

RULE = "quantize"
"""What made the new equations, for reports."""


@dataclasses.dataclass(frozen=True)
class WeightOptions:
    """How weights are quantized.

    Attributes:
      dtype: ``int8`` or ``int4``.
      group: weights along the summed axis that share a scale; 0 for all of them.
      per_channel: whether every output channel has its own scale.
      observer: how scales are chosen.
      rounding: ``nearest``, ``balanced`` as the function of that name, or ``adaptive`` on typical inputs.
    """

    dtype: str = "int8"
    group: int = 0
    per_channel: bool = True
    observer: WeightObserver = "min-max"
    rounding: Rounding = "nearest"


class Emission:
    """One graph being quantized.

    Args:
      graph: edited in place.
      placement: of that graph.
      table: of the target.
      scheme: how activations are treated.
      parameters: of every tapped value, by name.
      options: of the weights.
      means: of the input channels of values, by name; biases are corrected by them.
      adaptive: rounds the weights where the options say ``adaptive``.
    """

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        table: Table,
        scheme: Scheme,
        parameters: Mapping[str, Parameters],
        options: WeightOptions,
        means: Mapping[str, Array] | None = None,
        adaptive: AdaptiveRounding | None = None,
    ) -> None:
        self.graph = graph
        self.placement = placement
        self.table = table
        self.scheme = scheme
        self.parameters = parameters
        self.options = options
        self.adaptive = adaptive
        self._outputs = {id(op) for op in placement.outputs}
        self._input_names = {
            (id(op), k): placement.inputs[op.node.inputs[k]]
            for op in placement.operations
            for k in op.operands
            if op.node.inputs[k] in placement.inputs
        }
        self._rounded: dict[str, Value] = {}
        self._means = self._means_of_inputs(means or {})

    def _means_of_inputs(self, means: Mapping[str, Array]) -> dict[int, Array]:
        """Of the channels that each product reads, where they are known."""
        made = {id(op.output): op.name for op in self.placement.operations}
        found = {}
        for op in self.placement.operations:
            value = op.node.inputs[op.operands[0]]
            name = self.placement.inputs.get(value) or made.get(id(value), "")
            if op.is_product and name in means:
                found[id(op)] = means[name]
        return found

    def run(self) -> None:
        """Quantizes every operation that was chosen, in order."""
        for operation in self.placement.operations:
            for position in operation.operands:
                self._round_input(operation, position)
            if not operation.is_product:
                self._round_output(operation)
                continue
            made = self._dynamic(operation) if self._is_dynamic(operation) else self._product(operation)
            self.graph.replace(operation.output, made)
            self.graph.erase_dead(operation.nodes[-1])

    # -- activations -------------------------------------------------------------------------------------------------

    def _round_input(self, operation: Operation, position: int) -> None:
        name = self._input_names.get((id(operation), position))
        if name is None:
            return
        if name not in self._rounded:
            value = operation.node.inputs[position]
            self._rounded[name] = self._round(value, self.parameters[name], self.graph.after(value))
        self.graph.set_operand(operation.node, position, self._rounded[name])

    def _round(self, value: Value, p: Parameters, before: Node) -> Value:
        def there_and_back(x: Any) -> Any:
            numbers = QUANTIZE(x, p.scale, p.zero_point, **p.attributes())
            return DEQUANTIZE(numbers, p.scale, p.zero_point, **p.attributes())

        return self.graph.splice(there_and_back, value, before=before, rule=RULE)[0]

    def _round_output(self, operation: Operation) -> None:
        if id(operation) not in self._outputs:
            return
        value = operation.output
        before = list(value.uses)
        rounded = self._round(value, self.parameters[operation.name], self.graph.after(value))
        for user, index in before:
            self.graph.set_operand(user, index, rounded)

    def _output_parameters(self, operation: Operation) -> Parameters | None:
        return self.parameters[operation.name] if id(operation) in self._outputs else None

    def _input_scale(self, operation: Operation) -> float | None:
        """The scale of the integers that a product multiplies; None where it reads floats."""
        value = operation.node.inputs[operation.operands[0]]
        node = dequantized(source(value, rescales=False))
        p = None if node is None else parameters_of(node)
        return None if p is None or p.axis is not None else float(p.scale)

    # -- products ----------------------------------------------------------------------------------------------------

    def _is_dynamic(self, operation: Operation) -> bool:
        return self.scheme == "dynamic" and operation.kind == "dot" and not self.table.marks_dynamic

    def _product(self, operation: Operation) -> Value:
        form = form_of(operation, self.table)
        scale = self._input_scale(operation)
        p = self._weight_parameters(form)
        if scale is not None and not p.group:
            p = room_for_bias(p, scale, operation.bias)
        numbers = self._integers(operation, form, p)
        operation.bias = self._corrected_bias(operation, form, dequantize_array(numbers, p) - form.weights)
        constants = [numbers, p.scale, p.zero_point]
        bias = None
        if operation.bias is not None and scale is not None and not p.group:
            steps = bias_parameters(p, scale)
            numbers = quantize_bias(operation.bias, steps)
            if self.table.quantized_bias:
                bias = steps
                constants += [numbers, bias.scale, bias.zero_point]
            else:
                constants.append(dequantize_array(numbers, steps))
        elif operation.bias is not None:
            constants.append(operation.bias)
        out = self._output_parameters(operation)
        marks, pairs = self.scheme == "dynamic", self.table.pairs

        def product(x: Any, w: Any, scale: Any, zero_point: Any, *rest: Any) -> Any:
            x = DYNAMIC_RANGE(x) if marks else x
            y = form.apply(x, DEQUANTIZE(w, scale, zero_point, **p.attributes()))
            if rest:
                b = rest[0] if bias is None else DEQUANTIZE(*rest, **bias.attributes())
                y = y + b.reshape(form.bias_shape)
            y = _activated(y, operation.activation)
            if out is None:
                return form.finish(y)
            numbers = QUANTIZE(y, out.scale, out.zero_point, **out.attributes())
            numbers = numbers if pairs else form.finish(numbers)
            y = DEQUANTIZE(numbers, out.scale, out.zero_point, **out.attributes())
            return form.finish(y) if pairs else y

        x = operation.node.inputs[operation.operands[0]]
        values = as_constants(self.graph, constants, [None] * len(constants))
        return self.graph.splice(product, x, *values, before=operation.nodes[-1], rule=RULE)[0]

    def _corrected_bias(self, operation: Operation, form: Form, error: Array) -> Array | None:
        """The bias that leaves the means of the result what they were."""
        means = self._means.get(id(operation))
        shift = None
        if means is not None:
            shift = shift_of_mean(error, form.channel_axis, form.input_axis, form.groups, means)
        if shift is None:
            return operation.bias
        bias = np.zeros(shift.size) if operation.bias is None else operation.bias.astype(np.float64)
        return np.asarray(bias - shift, np.float32)

    def _weight_parameters(self, form: Form) -> Parameters:
        options = self.options
        if options.group and form.summed_axis is not None:
            return grouped(form.weights, form.summed_axis, options.group, options.dtype)
        if not options.per_channel:
            return per_tensor(form.weights, options.dtype)
        return per_channel(form.weights, form.channel_axis, options.observer, options.dtype)

    def _integers(self, operation: Operation, form: Form, p: Parameters) -> Array:
        if self.adaptive is not None:
            return self.adaptive.integers(operation.name, form, p)
        if self.options.rounding == "balanced":
            return balanced(form.weights, p, form.channel_axis)
        return quantize_array(form.weights, p)

    def _dynamic(self, operation: Operation) -> Value:
        form = dense(operation)
        p = self._weight_parameters(form)
        constants = [self._integers(operation, form, p), p.scale]
        if operation.bias is not None:
            constants.append(operation.bias)

        def product(x: Any, w: Any, scale: Any, *rest: Any) -> Any:
            y = form.around(x, lambda rows: DYNAMIC_DOT(rows, w, scale))
            y = y + rest[0] if rest else y
            return form.finish(_activated(y, operation.activation))

        x = operation.node.inputs[operation.operands[0]]
        values = as_constants(self.graph, constants, [None] * len(constants))
        return self.graph.splice(product, x, *values, before=operation.nodes[-1], rule=RULE)[0]


def _activated(y: Any, activation: Activation | None) -> Any:
    if activation is None:
        return y
    if activation.high is None:
        return jnp.maximum(y, 0)
    return RELU6(y) if activation.high == 6 else jnp.minimum(jnp.maximum(y, 0), activation.high)
