"""The model against another system on one metric: paired differences on the samples that both cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from torchcell.evaluation.bootstrap import Interval, interval

if TYPE_CHECKING:
    from torchcell.evaluation.scored import Scored


MIN_COVERAGE = 0.5
"""Share of the definable values that a baseline needs to be compared; below it is only shown. A value is definable if
any system has it: ``des`` is not where nothing is significant."""

BETTER, WORSE, EQUAL = "better", "worse", "no significant difference"

Role = Literal["primary", "calibration", "beside", "input", "signal"]
"""What is compared: the primary metric, a calibration metric, a further metric (``beside``), the drop of the primary
metric when the input is shuffled, or how far replicates are nearer to their own condition than chance (.5)."""


@dataclass(frozen=True)
class Comparison:
    """The model against another system on one metric.

    Attributes:
        role: See ``Role``.
        metric: Name as in the table; for a mean over outputs the name of the metric alone.
        baseline: The other system; None where there is no baseline with a value.
        difference, low, high: Model minus the other with its paired 95 % interval, in the metric's units.
        se: Standard error of the difference, corrected for the number of clusters.
        outcome: ``better``, ``worse``, ``no significant difference``, ``undefined`` (the model is undefined) or
            ``no baseline``.
        n_samples: Samples that both cover.
        n_clusters: Clusters that they belong to.
    """

    role: Role
    metric: str
    baseline: str | None
    difference: float
    low: float
    high: float
    se: float
    outcome: str
    n_samples: int
    n_clusters: int

    @classmethod
    def of(
        cls,
        difference: Interval,
        role: Role,
        metric: str,
        baseline: str,
        n_samples: int,
        n_clusters: int,
        higher_is_better: bool = True,
    ) -> Comparison:
        """The comparison with a given ``difference``."""
        outcome = EQUAL
        if np.isnan(difference.value):
            outcome = "undefined"
        elif difference.excludes_zero:
            outcome = BETTER if (difference.value > 0) == higher_is_better else WORSE
        numbers = difference.value, difference.low, difference.high, difference.se
        return cls(role, metric, baseline, *numbers, outcome, n_samples, n_clusters)

    @classmethod
    def none(cls, role: Role, metric: str) -> Comparison:
        """The comparison where no baseline has a value."""
        nan = float("nan")
        return cls(role, metric, None, nan, nan, nan, nan, "no baseline", 0, 0)


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric for comparisons: on one output, or the mean over several.

    Attributes:
        name: As in the table, or that of the metric alone where it is a mean over outputs.
        parts: The metric on each output.
    """

    name: str
    parts: tuple[Scored, ...]

    @property
    def higher_is_better(self) -> bool:
        """Direction."""
        return self.parts[0].metric.higher_is_better

    def value(self, system: str) -> np.ndarray:
        """Mean over the outputs on the data and on each resample [R + 1], on the samples that ``system`` covers."""
        return _mean([part.values_or_no_skill(system, part.covered(system)) for part in self.parts])

    def defined(self) -> bool:
        """Whether any system has a value on any output."""
        return any(
            not np.isnan(part.values(system, part.covered(system))[0])
            for part in self.parts
            for system in part.results.ordered
        )

    def difference(self, other: str) -> tuple[np.ndarray, int, int] | None:
        """Model minus ``other`` on the data and on each resample [R + 1], with the numbers of samples and clusters.

        None where ``other`` covers too little, or has no value.
        """
        pairs = [pair for part in self.parts if (pair := _pair(part, other)) is not None]
        if not pairs or len(pairs) < MIN_COVERAGE * len(self.parts):
            return None
        shared = np.logical_or.reduce([shared for _, shared, _, _ in pairs])
        values = _mean([ours - theirs for _, _, ours, theirs in pairs])
        return values, int(shared.sum()), pairs[0][0].weights.at(shared).n_clusters

    def against(self, other: str, role: Role) -> Comparison | None:
        """The model against ``other``; None where ``difference`` is."""
        result = self.difference(other)
        if result is None:
            return None
        values, n_samples, clusters = result
        difference = interval(values).for_clusters(clusters)
        return Comparison.of(difference, role, self.name, other, n_samples, clusters, self.higher_is_better)

    def compared(self, others: Sequence[str], role: Role) -> tuple[Comparison, ...]:
        """The model against each of ``others`` that covers enough."""
        return tuple(row for other in others if (row := self.against(other, role)) is not None)


def best(role: Role, metric: str, rows: Sequence[Comparison], higher_is_better: bool) -> Comparison:
    """The comparison with the best baseline: the one with the least favorable difference."""
    sign = 1 if higher_is_better else -1
    # Where the model is undefined take the first: it shows that there is a baseline.
    return min(
        rows,
        key=lambda row: np.inf if np.isnan(row.difference) else sign * row.difference,
        default=Comparison.none(role, metric),
    )


def to_frame(rows: Sequence[Comparison]) -> pd.DataFrame:
    """The table of ``comparisons.csv``: one row per role, metric and baseline."""
    return pd.DataFrame([asdict(row) for row in rows], columns=[field.name for field in fields(Comparison)])


def _pair(part: Scored, other: str) -> tuple[Scored, np.ndarray, np.ndarray, np.ndarray] | None:
    """One output, the mask of samples that model and ``other`` both cover, and both values on them [R + 1]."""
    if not _comparable(part, other):
        return None
    ours, theirs = part.covered(part.results.model), part.covered(other)
    shared = ours & theirs
    comparator = part.values_or_no_skill(other, shared if ours.any() else theirs)
    if np.isnan(comparator[0]):
        return None
    return part, shared, part.values_or_no_skill(part.results.model, shared), comparator


def _comparable(part: Scored, other: str) -> bool:
    """Whether ``other`` has enough of the definable values to be compared with the model.

    Values that only comparators have do not count, so that the verdict is the same with any comparators.
    """
    covered = part.covered(other)
    systems = [system for system in part.results.ordered if system not in part.results.comparators]
    definable = np.logical_or.reduce([part.covered(system) for system in systems])
    return bool(covered.any() and covered.sum() >= MIN_COVERAGE * definable.sum())


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(values), axis=0)
