"""`quantize`: products and convolutions in small integers."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from ...core.errors import UsageError
from ...core.graph import Graph
from ...core.options import suggestion
from ...core.pass_ import Pass, PassContext, PassResult
from ...core.program import Program
from ...core.rewrite import Numerics
from . import accuracy
from .adaptive import AdaptiveRounding, second_moments
from .arithmetic import Parameters, asymmetric
from .calibration import Calibration, calibrate
from .data import flat_batches, rewound
from .emission import Emission, WeightOptions
from .observers import Method, Range
from .operations import multiplications, source
from .placement import Placement, place
from .tables import Scheme, Table, table_for
from .weights import Rounding, WeightObserver

DEFAULT_GROUP = 32
"""Of int4 weights: the size for which runtimes have kernels."""


@dataclasses.dataclass(frozen=True)
class Quantize(Pass):
    """Turns products and convolutions with constant weights into int8 or int4, as the target has kernels for it.

    Attributes:
      scheme: static: ranges of activations are measured now, on calibration data; dynamic: when the program runs;
        weight-only: activations stay float.
      bits: of the weights; 4 with weight-only.
      group: weights along the summed axis that share a scale; 0 for all, or for 32 of int4.
      target: whose table is used: simulated, xla, onnx, tflite; auto for that of the compilation.
      observer: how a range follows from what was seen.
      percentile: of the observer of that name.
      per_channel: whether each output channel has its own scale.
      weights: how scales of weights are chosen.
      rounding: of weights: nearest; balanced, so that the errors of each channel add up to nothing; adaptive, for the
        least error of each product's result on the calibration data.
      rounding_batches: how many of the calibration data's batches adaptive rounding looks at.
      rounding_seconds: that adaptive rounding may take, after which it leaves weights at the nearest; 0 for no limit.
      bias_correction: whether biases make up for what rounding the weights does to the means of channels.
      calibration: a calibration file, read where it exists and written where it does not.
      keep: names of products that stay float, as the report calls them.
      accuracy_target: such as cosine>0.999, sqnr>35 or module:function>0.9; products stay float until it is met.
      accuracy_batches: how many of the calibration data's batches accuracy is measured on.
      plot: a file for a picture of the trade-off.
    """

    name: ClassVar[str] = "quantize"
    numerics: ClassVar[Numerics] = "lossy"
    idempotent: ClassVar[bool] = True
    promises: ClassVar[str] = "quantization"

    scheme: Scheme = "static"
    bits: Literal[8, 4] = 8
    group: int = 0
    target: str = "auto"
    observer: Method = "mse"
    percentile: float = 99.99
    per_channel: bool = True
    weights: WeightObserver = "min-max"
    rounding: Rounding = "nearest"
    rounding_batches: int = 8
    rounding_seconds: float = 0.0
    bias_correction: bool = False
    calibration: str = ""
    keep: tuple[str, ...] = ()
    accuracy_target: str = ""
    accuracy_batches: int = 4
    plot: str = ""

    def __post_init__(self) -> None:
        if self.bits == 4 and self.scheme != "weight-only":
            raise ValueError("4 bits are for scheme=weight-only")
        if self.bias_correction and self.scheme != "static":
            raise ValueError("bias-correction needs calibration data: it is for scheme=static")
        if self.plot and not self.accuracy_target:
            raise ValueError("plot shows what accuracy-target found")
        if self.accuracy_batches < 1 or self.rounding_batches < 1:
            raise ValueError("accuracy is measured, and weights are rounded, on at least one batch")
        if self.rounding_seconds < 0:
            raise ValueError("time does not run backwards: rounding-seconds is 0 or more")
        if self.rounding_seconds and self.rounding != "adaptive":
            raise ValueError("rounding-seconds is for rounding=adaptive")
        if self.group < 0:
            raise ValueError("a group has at least one weight")
        if self.group and self.scheme != "weight-only":
            raise ValueError("groups are for scheme=weight-only")
        if not 50 < self.percentile <= 100:
            raise ValueError("a percentile lies between 50 and 100")

    def run(self, program: Program, context: PassContext) -> PassResult:
        """Quantizes; raises `UsageError` where the static scheme has nothing to calibrate with."""
        table = table_for(self.target, context.target)
        if self.scheme == "weight-only" and self.bits not in table.weight_bits:
            raise UsageError(f"{table.name} has no kernels for weights of {self.bits} bits")
        placement = place(Graph(program.jaxpr), table, self.scheme, self.keep)
        self._check_names(placement)
        if not placement.operations:
            said = {"operations": self._described(placement), "tables": _left_in_float(placement)}
            return PassResult(program, False, details={**context.details, **said})
        wanted = max(self.accuracy_batches if self.accuracy_target else 0, self._rounding_batches)
        data, batches = self._first_batches(program, wanted)
        known = program.replace(calibration=data)
        if placement.taps():
            known = program.replace(calibration=self.calibrated(known, placement, context))
        adaptive = self._adaptive(program, placement, batches[: self._rounding_batches], context)
        details: dict[str, Any] = dict(context.details)
        if self.accuracy_target:
            result, placement, tables = self._meeting_target(known, batches, placement, table, context, adaptive)
            details["tables"] = tables
        else:
            result, placement = self._quantized(known, table, context, self.keep, adaptive)
        details["operations"] = self._described(placement)
        details["tables"] = details.get("tables", {}) | _left_in_float(placement)
        if adaptive is not None:
            details["tables"]["adaptive rounding"] = _gains(adaptive)
        if result is known:
            return PassResult(program, False, details=details)
        return PassResult(result.replace(calibration=program.calibration), True, details=details)

    def _check_names(self, placement: Placement) -> None:
        """Raises `UsageError` where a product that is to stay float is not there."""
        names = {op.name for op in placement.operations} | set(placement.floats)
        for name in self.keep:
            if name not in names:
                raise UsageError(
                    f"quantize{{keep={name}}}: there is no product {name!r}",
                    hint=suggestion(name, names) or "the report lists the products under their names",
                )

    def _quantized(
        self,
        program: Program,
        table: Table,
        context: PassContext,
        keep: Sequence[str],
        adaptive: AdaptiveRounding | None,
    ) -> tuple[Program, Placement]:
        """The program with all products but ``keep`` quantized, and where its quantizers stand."""
        graph = Graph(program.jaxpr, provenance=program.provenance)
        placement = place(graph, table, self.scheme, keep)
        if not placement.operations:
            return program, placement
        parameters = self.parameters(program, placement, table, context)
        means = self._means(program, placement, context) if self.bias_correction else None
        options = self.weight_options()
        Emission(graph, placement, table, self.scheme, parameters, options, means, adaptive).run()
        return program.replace(jaxpr=graph.to_closed(), provenance=graph.made_by), placement

    def _meeting_target(
        self,
        program: Program,
        batches: Sequence[Sequence[Any]],
        placement: Placement,
        table: Table,
        context: PassContext,
        adaptive: AdaptiveRounding | None,
    ) -> tuple[Program, Placement, dict[str, Any]]:
        """As few products in float as the target takes."""
        target = accuracy.Target.parse(self.accuracy_target)
        work = {op.name: multiplications(op.node) for op in placement.operations if op.is_product}
        batches = batches[: self.accuracy_batches]
        exact = [program.evaluate_flat(program.as_converted(flat)) for flat in batches]
        done = 0

        def evaluate(floats: Sequence[str]) -> float:
            nonlocal done
            context.report_progress(done, max(len(work) + 2, done + 1), f"measuring: {program.name}")
            done += 1
            trial, _ = self._quantized(program, table, context, (*self.keep, *floats), adaptive)
            found = [trial.evaluate_flat(program.as_converted(flat)) for flat in batches]
            return float(np.mean([accuracy.checked(target.metric, a, b) for a, b in zip(exact, found, strict=True)]))

        found = accuracy.meet(target, work, evaluate)
        if self.plot:
            accuracy.plot(found, target, self.plot)
        result, placement = self._quantized(program, table, context, (*self.keep, *found.keep), adaptive)
        return result, placement, found.tables(target)

    @property
    def _rounding_batches(self) -> int:
        return self.rounding_batches if self.rounding == "adaptive" else 0

    def _first_batches(self, program: Program, count: int) -> tuple[Any, list[Sequence[Any]]]:
        """The calibration data, and as many batches of them, which a generator gives only once."""
        data = program.calibration
        if count == 0:
            return data, []
        if data is None or isinstance(data, Calibration) or _file_among(data):
            what = "an accuracy target" if self.accuracy_target else "adaptive rounding"
            raise UsageError(
                f"{what} needs typical inputs of {program.name}, and there are none"
                if data is None
                else f"{what} needs typical inputs, and a calibration file has none",
                hint="give the data themselves, and the file as quantize{calibration=FILE}",
            )
        data, first = rewound(data, count)
        batches: list[Sequence[Any]] = list(itertools.islice(flat_batches(first, program)[0], count))
        if not batches:
            raise _empty(program)
        return data, batches

    def _adaptive(
        self, program: Program, placement: Placement, batches: Sequence[Sequence[Any]], context: PassContext
    ) -> AdaptiveRounding | None:
        if self.rounding != "adaptive":
            return None
        products = [op for op in placement.operations if op.is_product]

        def progress(done: int) -> None:
            context.report_progress(done, len(batches), f"looking at inputs of products: {program.name}")

        return AdaptiveRounding(second_moments(program, products, batches, progress), self.rounding_seconds)

    def weight_options(self) -> WeightOptions:
        """How weights are quantized."""
        group = self.group or (DEFAULT_GROUP if self.bits == 4 else 0)
        return WeightOptions(f"int{self.bits}", group, self.per_channel, self.weights, self.rounding)

    def parameters(
        self, program: Program, placement: Placement, table: Table, context: PassContext
    ) -> dict[str, Parameters]:
        """Those of every value that is quantized, by name."""
        taps = placement.taps()
        if not taps:
            return {}
        calibration = self.calibrated(program, placement, context)
        share = self.percentile
        ranges = {tap.name: calibration.range_of(tap.name, self.observer, percentile=share) for tap in taps}
        _share(ranges, placement, table)
        found = {name: asymmetric(*ends, table.activations) for name, ends in ranges.items()}
        return found | _prescribed(placement, table)

    def _means(self, program: Program, placement: Placement, context: PassContext) -> dict[str, Any]:
        values = self.calibrated(program, placement, context).values
        return {name: seen.channel_mean for name, seen in values.items() if seen.channel_mean.size}

    def calibrated(self, program: Program, placement: Placement, context: PassContext) -> Calibration:
        """What is known of the tapped values: from the file, or else from the program's calibration data."""
        if isinstance(program.calibration, Calibration):
            return program.calibration
        path = self.calibration or _file_among(program.calibration)
        known = Calibration.load(path) if path and os.path.exists(path) else Calibration()
        missing = known.lacks(tap.name for tap in placement.taps())
        if not missing and known.complete:
            return known
        data = program.calibration
        if data is None or _file_among(data):
            raise _no_data(program, missing)
        if missing or known.complete:
            known = Calibration(ranges=known.ranges)  # made for other values: it cannot be gone on with
        batches, total = flat_batches(data, program)

        def progress(done: int) -> None:
            context.report_progress(done, total or done + 1, f"calibrating: {program.name}")

        found = calibrate(program, placement.observed(), batches, into=known, path=path or None, progress=progress)
        if found.batches == 0:
            raise _empty(program)
        return found

    def _described(self, placement: Placement) -> dict[str, str]:
        what = f"int{self.bits} {self.scheme}"
        taken = {op.name: what for op in placement.operations if op.is_product}
        return taken | {name: f"float: {reason}" for name, reason in placement.floats.items()}


def _file_among(data: Any) -> str:
    """The path of a calibration file that was given in place of data; empty for data."""
    return os.fspath(data) if isinstance(data, str | os.PathLike) and os.fspath(data).endswith(".json") else ""


def _left_in_float(placement: Placement) -> dict[str, Any]:
    """For the report; nothing where all products become integer kernels."""
    rows = [{"product": name, "reason": reason} for name, reason in placement.floats.items()]
    return {"products left in float": rows} if rows else {}


def _gains(adaptive: AdaptiveRounding) -> list[dict[str, str]]:
    """For the report."""
    shown = {name: "not tried" if gain is None else f"{gain:.3f}" for name, gain in adaptive.gains.items()}
    return [{"product": name, "square error, by that of the nearest": text} for name, text in shown.items()]


def _empty(program: Program) -> UsageError:
    return UsageError(f"the calibration data of {program.name} are empty", hint="give at least one batch")


def _no_data(program: Program, missing: Sequence[str]) -> UsageError:
    return UsageError(
        f"quantize{{scheme=static}} needs typical inputs of {program.name}, and there are none"
        + (f" (nothing is known of {missing[0]!r})" if missing else ""),
        hint="define calibration_data = [...] in the model file, say --calibrate PATH, or pass calibration_data= to "
        "xlapass.compile: one tuple of arguments for each of some 100 batches. scheme=dynamic needs none",
    )


def _share(ranges: dict[str, Range], placement: Placement, table: Table) -> None:
    """Operands and results that must have one scale get the range of all of them."""
    made = {id(op.output): op.name for op in placement.outputs}
    groups = []
    for op in placement.operations:
        if op.kind in table.shared_scale:
            operands = [op.node.inputs[k] for k in op.operands]
            names = [placement.inputs.get(v) or made[id(source(v, table.rescales, made))] for v in operands]
            groups.append([op.name, *names])
    again = bool(groups)
    while again:
        before = dict(ranges)
        for names in groups:
            both = min(ranges[n][0] for n in names), max(ranges[n][1] for n in names)
            ranges.update(dict.fromkeys(names, both))
        again = ranges != before


def _prescribed(placement: Placement, table: Table) -> dict[str, Parameters]:
    """Results whose scale the runtime fixes."""
    found = {}
    for op in placement.outputs:
        if op.kind in table.fixed:
            scale, zero_point = table.fixed[op.kind]
            found[op.name] = Parameters(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32), "int8")
    return found
