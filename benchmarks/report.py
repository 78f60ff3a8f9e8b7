"""Results as data, as a text table and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from measure import geometric_mean
from rich.table import Table

Quartiles = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One contender on one model in one layout.

    Attributes:
      variant: which of the contender's own variants was fastest.
      milliseconds: quartiles of the time of a call.
      ratio: quartiles of the reference's time over this one's, round by round: above 1 is faster.
      error: largest difference from the reference's outputs, relative to the scale of each output.
      noise: the difference that the reference's own rounding explains, where it was measured (training steps).
      build_seconds: until the first result.
      failure: why there is no measurement; the other fields are then empty.
    """

    model: str
    family: str
    layout: str
    contender: str
    variant: str = ""
    milliseconds: Quartiles | None = None
    ratio: Quartiles | None = None
    error: float | None = None
    noise: float = 0.0
    build_seconds: float | None = None
    failure: str | None = None


@dataclasses.dataclass(frozen=True)
class Results:
    """A whole run: `machine` and `contenders` describe it, `absent` says who could not take part and why.

    `layout_ratio` holds, for models measured in both layouts, quartiles of the time in nhwc over that in nchw.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    reference: str
    contenders: dict[str, str]
    absent: dict[str, str]
    measurements: tuple[Measurement, ...]
    layout_ratio: dict[str, dict[str, Quartiles]]
    tolerance: float

    def agrees(self, measurement: Measurement) -> bool:
        """Whether the outputs equal the reference's, up to the tolerance."""
        return measurement.error is not None and measurement.error <= max(self.tolerance, measurement.noise)

    def median_ratio(self, contender: str, families: Sequence[str] = ()) -> float | None:
        """Geometric mean of the median ratios of a contender, over the models (of some families) it ran rightly."""
        ratios = [
            m.ratio[1]
            for m in self.measurements
            if m.contender == contender and m.ratio and self.agrees(m) and (not families or m.family in families)
        ]
        return geometric_mean(ratios) if ratios else None

    def against_fastest(self, contender: str, others: Sequence[str]) -> dict[str, float]:
        """For each model that any of `others` ran rightly: the time of the fastest of them over the contender's."""
        found = {}
        for mine in self.measurements:
            if mine.contender != contender or not mine.milliseconds or not self.agrees(mine):
                continue
            theirs = [
                m.milliseconds[1]
                for m in self.measurements
                if (m.model, m.layout) == (mine.model, mine.layout) and m.contender in others
                if m.milliseconds and self.agrees(m)
            ]
            if theirs:
                found[_label(mine.model, mine.layout)] = min(theirs) / mine.milliseconds[1]
        return found

    def summary(self) -> dict[str, Any]:
        """Geometric means of the ratios, and where xlapass stands against the fastest other runtime."""
        runtimes = [name for name in self.contenders if name in OTHER_RUNTIMES]
        summary: dict[str, Any] = {"convolutional": {}, "all": {}, "against_fastest_runtime": {}}
        for name in self.contenders:
            summary["convolutional"][name] = self.median_ratio(name, ("conv",))
            summary["all"][name] = self.median_ratio(name)
            if name.startswith("xlapass") and (ratios := self.against_fastest(name, runtimes)):
                mean = geometric_mean(list(ratios.values()))
                summary["against_fastest_runtime"][name] = {"geometric_mean": mean, "models": ratios}
        return summary


# Load per core, from before the run, above which other work disturbs the figures.
BUSY = 0.5

OTHER_RUNTIMES = ("onnxruntime", "litert", "openvino")


def write_json(results: Results, path: Path) -> None:
    content = dataclasses.asdict(results) | {"summary": results.summary()}
    path.write_text(json.dumps(content, indent=1) + "\n")


def table(results: Results) -> Table:
    """A row for each model and layout, a column for each contender."""
    others = [name for name in results.contenders if name != results.reference]
    view = Table(title=f"Speed against {results.reference} (above 1 is faster)", title_justify="left")
    view.add_column("model")
    view.add_column(f"{results.reference}\nms", justify="right")
    for name in others:
        view.add_column(f"{name}\nmedian [quartiles]", justify="right")
    for model, layout in dict.fromkeys((m.model, m.layout) for m in results.measurements):
        row = {m.contender: m for m in results.measurements if (m.model, m.layout) == (model, layout)}
        cells = [_ratio_cell(results, row.get(name)) for name in others]
        view.add_row(_label(model, layout), _time_cell(row.get(results.reference)), *cells)
    view.add_section()
    summary = results.summary()
    for label in ("convolutional", "all"):
        means = [summary[label][name] for name in others]
        view.add_row(f"geometric mean, {label}", "", *("" if mean is None else f"{mean:.2f}" for mean in means))
    return view


def notes(results: Results) -> str:
    """What the table's figures mean, who is absent or failed, and the summaries that have no column."""
    lines = [
        f"{results.reference} is the faster of two: weights as arguments (a) or closed over as constants (c).",
        "All contenders take turns within one process; a ratio is the median over the rounds.",
        f"! marks outputs that differ by more than {results.tolerance:g} of their scale, or in training steps than "
        "rounding explains: left out of the means.",
    ]
    for contender, ratios in results.layout_ratio.items():
        text = ", ".join(f"{model} {middle:.2f}" for model, (_, middle, _) in ratios.items())
        lines.append(f"Time in nhwc over time in nchw, {contender}: {text}.")
    for contender, entry in results.summary()["against_fastest_runtime"].items():
        mean = entry["geometric_mean"]
        lines.append(f"{contender} against the fastest other runtime: geometric mean {mean:.2f}.")
    load, cores = results.machine["load"], results.machine["cores"]
    if load > BUSY * cores:
        lines.append(f"The machine was busy before this began (load {load:.1f} on {cores} cores): measure again.")
    lines += [f"{name} is absent: {reason}." for name, reason in results.absent.items()]
    lines += [f"{m.contender} on {_label(m.model, m.layout)}: {m.failure}" for m in results.measurements if m.failure]
    return "\n".join(lines)


def draw(results: Results, path: Path) -> None:
    """Bars of the ratios with their quartiles, on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    others = [name for name in results.contenders if any(m.contender == name and m.ratio for m in results.measurements)]
    others = [name for name in others if name != results.reference]
    rows = list(dict.fromkeys((m.model, m.layout) for m in results.measurements))
    height = 0.8 / max(1, len(others))
    figure = Figure(figsize=(9, 1.5 + len(rows) * (0.2 + 0.16 * len(others))), layout="constrained")
    axes = figure.subplots()
    for position, name in enumerate(others):
        shown = [m for m in results.measurements if m.contender == name and m.ratio]
        places = [rows.index((m.model, m.layout)) + (position + 0.5) * height - 0.4 for m in shown]
        low, middle, high = _columns(m.ratio for m in shown if m.ratio)
        errors = [[b - a for a, b in zip(low, middle, strict=True)], [b - a for a, b in zip(middle, high, strict=True)]]
        widths = [ratio - 1.0 for ratio in middle]
        axes.barh(places, widths, height, left=1.0, xerr=errors, label=name, error_kw={"elinewidth": 0.8})
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(LogLocator(base=2, subs=(1.0, 1.5)))
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.set_yticks(range(len(rows)), [_label(model, layout) for model, layout in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"speed against {results.reference}")
    if others:
        figure.legend(loc="outside lower center", ncols=len(others), fontsize="small")
    figure.savefig(path, dpi=150)


def _columns(triples: Iterable[Quartiles]) -> tuple[list[float], list[float], list[float]]:
    rows = list(triples)
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _label(model: str, layout: str) -> str:
    return model if layout == "nhwc" else f"{model} ({layout})"


def _time_cell(measurement: Measurement | None) -> str:
    if measurement is None or measurement.milliseconds is None:
        return "failed"
    return f"{measurement.milliseconds[1]:.2f} {measurement.variant[:1]}"


def _ratio_cell(results: Results, measurement: Measurement | None) -> str:
    if measurement is None:
        return ""
    if measurement.ratio is None:
        return "failed"
    low, middle, high = measurement.ratio
    return f"{middle:.2f} \\[{low:.2f}-{high:.2f}]" + ("" if results.agrees(measurement) else " !")
