"""Sections of the page: figures and tables with a sentence of explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from torchcell.evaluation.comparison import Comparison
from torchcell.evaluation.evaluate import Evaluation
from torchcell.evaluation.registry import metric_set, profile
from torchcell.evaluation.results import Results
from torchcell.report.layout import best_baseline, number, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST_OUTPUTS = 4
"""Outputs that get figures of their own; the table has all."""


@dataclass(frozen=True, eq=False)
class Section:
    """One part of the page.

    Attributes:
        title: Heading.
        text: A sentence or two; plain text.
        figure: Drawn below the text; saved as ``figures/<name>.png``.
        table: Shown below the figure, without its index.
        name: Name of the figure's file; by default made from the title.
        caption: What the figure shows; screen readers read it in place of the figure.
    """

    title: str
    text: str = ""
    figure: Figure | None = None
    table: pd.DataFrame | None = None
    name: str = ""
    caption: str = ""

    @property
    def slug(self) -> str:
        """The name of the figure's file."""
        plain = "".join(c if c.isalnum() else "_" for c in (self.name or self.title).lower())
        return "_".join(part for part in plain.split("_") if part)


def default_sections(
    evaluation: Evaluation,
    results: Results,
    history: pd.DataFrame | None,
    info: Mapping[str, Any],
    checks: Mapping[str, Any],
) -> dict[str, Callable[[], list[Section]]]:
    """Functions that make the sections of every report, in order; a section that has no figure says why."""
    return {
        "Against the best baseline": lambda: [_comparison(evaluation, results)],
        "Against comparators": lambda: _comparators(evaluation, results),
        "Predictions": lambda: _predictions(evaluation, results, info),
        "Training": lambda: _training(history),
        "Checks": lambda: [_checks(checks)],
        "What was left out of the data": lambda: [_left_out(info)],
    }


def _comparison(evaluation: Evaluation, results: Results) -> Section:
    from torchcell.report.plots import forest

    verdict = evaluation.verdict
    return Section(
        "Against the best baseline",
        f"{results.model} minus the best baseline on the samples both cover, with the same resamples of clusters. The "
        "primary metric decides; calibration must not be worse; the others are for information.",
        forest(evaluation, results),
        _differences([verdict.primary, *verdict.calibration, *verdict.beside], "best baseline"),
        "forest",
        "Value and 95 % interval of every system, ↑ higher and ↓ lower is better; the dotted line is no skill.",
    )


def contribution_sections(
    name: str, contributions: Sequence[Mapping[str, float]], outputs: Sequence[str]
) -> list[Section]:
    """What the sources add to the predictions of a system that is a sum over them.

    Args:
        name: Of the system.
        contributions: See ``Predictor.contributions``, one an output, or one for all.
        outputs: Their names.
    """
    from torchcell.report.plots import bars

    found = []
    if len(contributions) == 1:
        outputs = [outputs[0] if len(outputs) == 1 else "all outputs"]
    for output, added in list(zip(outputs, contributions, strict=True))[:MOST_OUTPUTS]:
        if added:
            tail = f": {output}" if len(outputs) > 1 else ""
            title = f"What carries {name}{tail}"
            text = "Standard deviation over training samples of what each source adds to its predictions."
            label = f"added to {output}"
            found.append(Section(title, text, bars(added, label), name=title, caption="Sources, the largest first."))
    return found


def _comparators(evaluation: Evaluation, results: Results) -> list[Section]:
    """One section on the other trained models, where there are any."""
    if not evaluation.comparators:
        return []
    sentences = " ".join(f"{results.model} {one.text}." for one in evaluation.comparators)
    rows = [row for one in evaluation.comparators for row in one.per_metric]
    text = (
        f"{sentences} Differences are {results.model} minus the comparator, as above; comparators have no part in the "
        "verdict."
    )
    return [Section("Against comparators", text, table=_differences(rows, "comparator"))]


def _differences(rows: Sequence[Comparison], other: str) -> pd.DataFrame:
    """Paired differences as text; ``other`` is the title of the column of the other system."""
    return pd.DataFrame(
        {
            "metric": row.metric if row.role == "beside" else f"{row.metric} ({row.role})",
            other: row.baseline or "none is defined",
            "difference": "undefined" if np.isnan(row.difference) else number(row.difference),
            "95 % interval": span(row.low, row.high),
            "samples": f"{row.n_samples:,}",
            "outcome": row.outcome,
        }
        for row in rows
    )


def _predictions(evaluation: Evaluation, results: Results, info: Mapping[str, Any]) -> list[Section]:
    from torchcell.report.plots import predicted_against_measured, ranking_curves, residuals_by_set_size

    other = best_baseline(evaluation, results)
    systems = [results.model] if other is None else [results.model, other]
    units = info.get("units") if isinstance(info.get("units"), Mapping) else None
    shown = 1 if results.per_gene else min(len(results.outputs), MOST_OUTPUTS)
    sections: list[Section] = []
    for t in range(shown):
        tail = f": {results.outputs[t]}" if shown > 1 else ""
        mark = f"_{results.outputs[t]}" if shown > 1 else ""
        if metric_set(results.task).labels:
            figure = ranking_curves(results, systems, t)
            text = "" if figure is not None else "Not drawn: the measured labels hold one class only."
            caption = "ROC and precision-recall curves; other systems in grey, no skill dashed."
            sections.append(Section(f"Ranking{tail}", text, figure, None, f"ranking{mark}", caption))
            continue
        figure = predicted_against_measured(results, systems, t, units)
        text = "" if figure is not None else "Not drawn: no measured value has a prediction."
        caption = f"{' and '.join(systems)}; the dashed line is perfect prediction."
        sections.append(
            Section(
                f"Predicted against measured{tail}", text, figure, None, f"predicted_against_measured{mark}", caption
            )
        )
        figure = residuals_by_set_size(results, systems, t, units)
        text = "" if figure is not None else "Not drawn: the samples are not perturbations of genes."
        caption = "Quartiles, whiskers at 5 and 95 %; a box off the dashed line is a bias."
        sections.append(
            Section(f"Residuals by number of perturbed genes{tail}", text, figure, None, f"residuals{mark}", caption)
        )
    if shown < len(results.outputs) and not results.per_gene:
        text = f"{len(results.outputs) - shown} further outputs are in the table and in predictions.parquet."
        sections.append(Section("Further outputs", text))
    return sections


def _training(history: pd.DataFrame | None) -> list[Section]:
    from torchcell.report.plots import learning_curves, loss_shares

    curves = None if history is None or history.empty else learning_curves(history)
    shares = None if history is None or history.empty else loss_shares(history)
    untrained = "Not drawn: nothing was trained in this run."
    return [
        Section(
            "Learning curves",
            "" if curves is not None else untrained,
            curves,
            None,
            "learning_curves",
            "Loss and validation metric by epoch; the dotted line marks the best epoch.",
        ),
        Section(
            "Shares of the loss",
            "" if shares is not None else ("Not drawn: the loss has one term." if curves is not None else untrained),
            shares,
            None,
            "loss_shares",
            "Each term's share of the total; a term beyond a dotted line (90 %) dominates the objective.",
        ),
    ]


def _checks(checks: Mapping[str, Any]) -> Section:
    rows = [row for name, value in checks.items() for row in check_rows(name, value)]
    text = "Whether a good score could have another cause than a good model." if rows else "No check was made."
    return Section("Checks", text, table=pd.DataFrame(rows, columns=["check", "finding", "status"]) if rows else None)


def check_rows(name: str, value: Any) -> list[dict[str, str]]:
    """The check ``name`` as rows of finding and status; an unknown form is shown as it is."""
    title = name.replace("_", " ")
    if isinstance(value, Mapping) and {"finding", "status"} <= set(value) and "collapsed" not in value:
        return [{"check": title, "finding": str(value["finding"]), "status": str(value["status"])}]
    if isinstance(value, Mapping) and "collapsed" in value:
        parts = [("samples", value.get("over_samples")), ("outputs", value.get("over_outputs"))]
        spread = "; ".join(f"{number(v)} of the data's sd over {over}" for over, v in parts if v is not None)
        collapsed = ", ".join(map(str, value.get("collapsed_outputs", [])[:5]))
        status = f"COLLAPSED {collapsed}".strip() if value["collapsed"] else "ok"
        return [{"check": title, "finding": spread or str(value.get("finding", "undefined")), "status": status}]
    if name == "loss_share_warnings":
        none = [{"check": title, "finding": "no term above 90 % of the total", "status": "ok"}]
        return [{"check": title, "finding": str(one["text"]), "status": "WARNING"} for one in value] or none
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in check_rows(f"{name} {key}", inner)]
    return [{"check": title, "finding": number(value) if isinstance(value, float) else str(value), "status": ""}]


def _left_out(info: Mapping[str, Any]) -> Section:
    dropped = info.get("dropped") or {}
    rows = [{"what": what, "count": f"{count:,}"} for what, count in dropped.items()]
    text = (
        "Counted while the raw data was read and mapped." if rows else "Nothing was left out, or nothing was counted."
    )
    return Section("What was left out of the data", text, table=pd.DataFrame(rows) if rows else None)


def glossary(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Name and meaning of each metric."""
    tasks = {results.task: results.systems for results in evaluation.results}
    return [(one.name, one.sentence) for task, systems in tasks.items() for one in profile(task, systems)]
