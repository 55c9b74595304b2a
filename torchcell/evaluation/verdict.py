"""The verdict of a run as one line of text, and comparisons with other trained models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from torchcell.evaluation.bootstrap import FEWEST_CLUSTERS
from torchcell.evaluation.checks import UNCHECKED, Check
from torchcell.evaluation.comparison import BETTER, EQUAL, WORSE, Comparison, Measure, Role, best
from torchcell.evaluation.registry import higher_is_better
from torchcell.evaluation.results import Design, Results

NO_VERDICT = "no verdict"
FEWEST_RESAMPLES = 50
"""With fewer resamples the ends of an interval are not reliable."""
SEEN = {"train": "learned from", "val": "was chosen by"}
"""Parts that are no test, and the reason in words."""
Color = Literal["green", "red", "grey"]


@dataclass(frozen=True)
class Evidence:
    """All that a verdict depends on, of one run or of several together.

    Attributes:
        comparisons: The model against each baseline, on the primary metric, its calibration and those beside.
        metric: The primary metric.
        chosen: Whether the config named it, and not the task.
        n_missing: Numbers of values that some system has and the model has not, and that some system has.
        spread: ``checks.spread`` of the model.
        n_outputs: Number of outputs.
        converged: False where the validation metric was still rising.
        max_epochs: Epochs to propose for a run that has not converged.
        data_changed: Whether the data differ from those that the model was trained on.
        part: Part of the split; train and val are no test.
        n_boot: Number of resamples.
        design: How the part was made.
        left_out: Baselines with too few samples to be compared.
        ceiling: Name and value of the ceiling.
        checks: Results of further checks.
        notes: Further texts for the line.
    """

    comparisons: tuple[Comparison, ...]
    metric: str
    chosen: bool = False
    n_missing: tuple[int, int] = (0, 0)
    spread: Mapping[str, Any] = field(default_factory=dict)
    n_outputs: int = 1
    converged: bool | None = None
    max_epochs: int | None = None
    data_changed: bool = False
    part: str = "test"
    n_boot: int = FEWEST_RESAMPLES
    design: Design = field(default_factory=Design)
    left_out: tuple[str, ...] = ()
    ceiling: tuple[str, float] | None = None
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    def rows(self, role: str) -> list[Comparison]:
        """The comparisons of one role."""
        return [row for row in self.comparisons if row.role == role]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a model as one line, with its parts.

    Attributes:
        text: The line, the same in the terminal, on the page, in ``metrics.json`` and in wandb.
        kind: ``better``, ``no significant difference``, ``worse`` or ``no verdict``.
        reason: Why there is no verdict.
        color: ``green`` for better and calibrated, ``red`` for worse, ``grey`` for all else.
        primary: The comparison with the best baseline on the primary metric.
        calibration: The same on each calibration metric.
        beside: The same on further metrics; they decide nothing.
        every: All comparisons, since the best baseline may differ between folds.
        cluster: Name of a cluster, e.g. ``query gene``.
        chosen: Whether the config named the primary metric.
        collapsed: Whether predictions or a part of the model have collapsed.
        n_missing: Number of values that some system has and the model has not.
        ceiling: Name and value of the ceiling.
    """

    text: str
    kind: str
    reason: str
    color: Color
    primary: Comparison
    calibration: tuple[Comparison, ...]
    beside: tuple[Comparison, ...]
    every: tuple[Comparison, ...]
    cluster: str
    chosen: bool
    collapsed: bool
    n_missing: int = 0
    ceiling: tuple[str, float] | None = None

    def summary(self) -> dict[str, Any]:
        """The entry in ``metrics.json``; an undefined number is None."""
        row = self.primary
        return {
            "text": self.text,
            "class": self.kind,
            "reason": self.reason,
            "color": self.color,
            "metric": row.metric,
            "metric_chosen": self.chosen,
            **_numbers(row),
            "clusters": row.n_clusters,
            "missing": self.n_missing,
            "ceiling": None if self.ceiling is None else dict(zip(("name", "value"), self.ceiling, strict=True)),
            "cluster": self.cluster,
            "calibration": [{"metric": one.metric, **_numbers(one)} for one in self.calibration],
        }


def judge(evidence: Evidence) -> Verdict:
    """The verdict from the evidence, or the reasons why there is none."""
    primary = _best(evidence.rows("primary"), "primary", evidence.metric)
    calibration, beside = (tuple(_each_metric(evidence.rows(role), role)) for role in ("calibration", "beside"))
    reasons = list(_reasons(evidence, primary))
    kind = NO_VERDICT if reasons else primary.outcome
    worse = [row for row in calibration if row.outcome == WORSE]
    color: Color = "grey"
    if kind == WORSE:
        color = "red"
    elif kind == BETTER and not worse:
        color = "green"
    sentences = [compared_words(primary, evidence.design.cluster)]
    if reasons:
        sentences = [f"{NO_VERDICT}: {'; '.join(reasons)}", *_provisional(primary, evidence.design.cluster)]
    sentences += [*_calibration_words(calibration), *_check_words(evidence), *_ceiling_words(evidence, primary)]
    sentences += _further_words(evidence)
    prefix = "on a random split: " if evidence.design.split == "random" else ""
    return Verdict(
        prefix + "; ".join(sentences),
        kind,
        reasons[0] if reasons else "",
        color,
        primary,
        calibration,
        beside,
        (*evidence.comparisons, *(check.row for check in evidence.checks if check.row is not None)),
        evidence.design.cluster,
        evidence.chosen,
        any(reason.startswith("collapsed") for reason in reasons),
        evidence.n_missing[0],
        evidence.ceiling,
    )


def _reasons(evidence: Evidence, primary: Comparison) -> Iterator[str]:
    """Why there is no verdict; nothing where there is one."""
    failed = [check for check in evidence.checks if check.reason and check.status in ("failed", "not shown")]
    if evidence.spread.get("collapsed"):
        yield f"collapsed: its predictions are nearly constant{_extent(evidence.spread)}"
    yield from (check.reason for check in failed if check.reason.startswith("collapsed"))
    if evidence.converged is False:
        epochs = "" if evidence.max_epochs is None else f"; try trainer.max_epochs={evidence.max_epochs}"
        yield f"not converged, the validation metric was still rising{epochs}"
    if evidence.part in SEEN:
        yield f"the part {evidence.part!r} is what it {SEEN[evidence.part]}"
    if evidence.n_boot < FEWEST_RESAMPLES:
        yield f"too few resamples ({evidence.n_boot}, {FEWEST_RESAMPLES} are needed): set evaluation.n_boot higher"
    if evidence.data_changed:
        yield "the data are not those it was trained on"
    lacking, total = evidence.n_missing
    if lacking:
        of = f" of {total:,}" if total else ""
        yield f"it has no prediction for {lacking:,}{of} values that can be predicted"
    if primary.outcome == "no baseline":
        yield "no baseline to compare with"
    elif primary.outcome == "undefined":
        yield f"its {evidence.metric} is undefined"
    yield from (check.reason for check in failed if not check.reason.startswith("collapsed"))
    if primary.baseline is not None and primary.n_clusters < FEWEST_CLUSTERS and primary.outcome != WORSE:
        yield _too_few(primary.n_clusters, evidence.design)


def _too_few(n: int, design: Design) -> str:
    text = f"too few clusters ({counted(n, design.cluster)}, {FEWEST_CLUSTERS} are needed)"
    if design.n_clusters is not None and design.n_folds is not None and design.n_clusters > n:
        folds = ",".join(map(str, range(design.n_folds)))
        return f"{text}: pool the folds by -m split.fold={folds}, then collect"
    return f"{text}: the data have no more"


def compared_words(row: Comparison, cluster: str) -> str:
    """``better than ridge by .011 [.004, .018] pearson over 312 query genes``."""
    if row.outcome == EQUAL:
        return f"{EQUAL} from {row.baseline}: {_amount(row)} over {counted(row.n_clusters, cluster)}"
    return f"{row.outcome} than {row.baseline} by {_amount(row)} over {counted(row.n_clusters, cluster)}"


def _provisional(row: Comparison, cluster: str) -> list[str]:
    if row.baseline is None or np.isnan(row.difference):
        return []
    signed = _amount(replace(row, outcome=EQUAL))  # no word says worse here: a worse model has a number below 0
    return [f"the comparison so far, with {row.baseline}: {signed} over {counted(row.n_clusters, cluster)}"]


def _amount(row: Comparison) -> str:
    """Difference and interval, with the sign chosen so that a positive number is better, or worse for ``worse``."""
    sign = 1 if higher_is_better(row.metric) else -1
    sign = -sign if row.outcome == WORSE else sign
    numbers = sign * row.difference, *sorted((sign * row.low, sign * row.high))
    value, low, high = (short(number, _places(numbers)) for number in numbers)
    return f"{value} [{low}, {high}] {row.metric}"


def _calibration_words(rows: Sequence[Comparison]) -> Iterator[str]:
    for row in rows:
        if row.outcome in (BETTER, WORSE):
            yield f"{row.metric} {row.outcome} than {row.baseline} by {_amount(row).removesuffix(' ' + row.metric)}"
        elif row.outcome == EQUAL:
            yield f"{row.metric} not different from {row.baseline}"


def _check_words(evidence: Evidence) -> Iterator[str]:
    """Whether the model uses the input that the split holds out, and which other inputs it does not use."""
    shuffles = [check for check in evidence.checks if check.name.endswith("_shuffled")]
    yield from ("input used" for check in shuffles if check.row is not None and check.status == "ok")
    if any(check.status == "not applicable" for check in shuffles[:1]):
        yield f"{_input(shuffles[0])} is the same for all test samples: its use can't be checked"
    if any(check.name == UNCHECKED for check in evidence.checks):
        yield "input use not checked"
    others = [check for check in shuffles if check.row is None]
    unused, used = ([_input(c) for c in others if c.status == status] for status in ("failed", "ok"))
    if unused:
        yield f"{_listed(unused)} not used" + (f": the prediction rests on {_listed(used)}" if used else "")


def _input(check: Check) -> str:
    return check.name.removesuffix("_shuffled").replace("_", " ")


def _ceiling_words(evidence: Evidence, primary: Comparison) -> Iterator[str]:
    if evidence.ceiling is not None:
        name, value = evidence.ceiling
        yield f"{name} {short(value, 2)}"
        if name != "ceiling" and primary.metric.startswith("pearson") and 0 < value < 1:
            yield f"the mean of two replicates {short(2 * value / (1 + value), 2)} (Spearman-Brown)"


def _further_words(evidence: Evidence) -> Iterator[str]:
    if evidence.left_out:
        yield f"not compared, with too few samples covered: {', '.join(evidence.left_out)}"
    active = evidence.spread.get("active", evidence.n_outputs)
    if active < evidence.n_outputs:
        yield f"its weights were trained on {active:,} of {evidence.n_outputs:,} outputs"
    if evidence.chosen:
        yield f"{evidence.metric} was chosen as primary metric before the run"
    yield from evidence.notes


def _best(rows: Sequence[Comparison], role: Any, metric: str) -> Comparison:
    return best(role, metric, rows, higher_is_better(metric))


def _each_metric(rows: Sequence[Comparison], role: Any) -> Iterator[Comparison]:
    for metric in dict.fromkeys(row.metric for row in rows):
        yield _best([row for row in rows if row.metric == metric], role, metric)


def counted(n: int, what: str) -> str:
    """``312 query genes``."""
    plural = what if n == 1 else f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{n:,} {plural}"


def short(value: float, places: int = 3) -> str:
    """``.011`` and ``-.004``: a number without its leading zero, never ``-.000``."""
    if np.isnan(value):
        return "undefined"
    text = f"{value:,.{places}f}"
    text = text.removeprefix("-") if float(text.replace(",", "")) == 0 else text
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-").startswith("0.") else text


def _places(numbers: Sequence[float]) -> int:
    """Decimals that show two digits of the largest number; at least three."""
    largest = max((abs(number) for number in numbers if np.isfinite(number)), default=1.0)
    return int(np.clip(1 - np.floor(np.log10(largest)), 3, 9)) if largest > 0 else 3


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _numbers(row: Comparison) -> dict[str, Any]:
    numbers = {"effect": row.difference, "low": row.low, "high": row.high}
    plain: dict[str, Any] = {key: float(value) if np.isfinite(value) else None for key, value in numbers.items()}
    return {**plain, "baseline": row.baseline, "outcome": row.outcome}


def _extent(spread: Mapping[str, Any]) -> str:
    value = spread.get("over_samples")
    return "" if value is None else f" (spread {value:.2g} of the data's sd)"


@dataclass(frozen=True)
class PairwiseComparison:
    """The comparison of the model with one comparator as one line, with its numbers.

    Attributes:
        comparator: A key of ``Results.systems``.
        text: The line: the comparison on the primary metric.
        per_metric: One comparison per metric with the comparator as ``baseline``, the primary metric first; the outcome
            is ``comparator undefined`` where it has no value, or one for too few samples.
    """

    comparator: str
    text: str
    per_metric: tuple[Comparison, ...]

    def with_note(self, note: str) -> PairwiseComparison:
        """The same with a note at the end of the line."""
        return replace(self, text=f"{self.text}; {note}")

    def summary(self) -> dict[str, Any]:
        """The entry in ``metrics.json``; an undefined number is None."""
        numbers = ("difference", "low", "high", "outcome", "n_samples")
        rows = {row.metric: {name: _plain(asdict(row)[name]) for name in numbers} for row in self.per_metric}
        return {"verdict": self.text, "differences": rows}


def against(
    measures: Mapping[Role, Sequence[Measure]], results: Results, converged: bool | None
) -> tuple[PairwiseComparison, ...]:
    """Compare the model with each comparator on every compared metric.

    Args:
        measures: By role, see ``comparison.Role``.
        results: The deciding results.
        converged: False marks the comparison as provisional.
    """
    comparisons = []
    for comparator in results.comparators:
        rows = [_compared(measure, comparator, role) for role, used in measures.items() for measure in used]
        text = compared_words(rows[0], results.design.cluster)
        if rows[0].outcome in ("comparator undefined", "undefined"):
            text = f"no comparison: {rows[0].metric} is undefined"
        if converged is False:
            text = f"not converged, so provisional: {text}"
        comparisons.append(PairwiseComparison(comparator, f"against {comparator}: {text}", tuple(rows)))
    return tuple(comparisons)


def _compared(measure: Measure, comparator: str, role: Role) -> Comparison:
    comparison = measure.against(comparator, role)
    missing = replace(Comparison.none(role, measure.name), baseline=comparator, outcome="comparator undefined")
    return missing if comparison is None else comparison


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
