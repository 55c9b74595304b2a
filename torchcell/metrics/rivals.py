"""``Against``: the model beside another trained model, on the resamples and metrics of the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.metrics.registry import HEADLINE
from torchcell.metrics.results import Results
from torchcell.metrics.verdict import UNCONVERGED, Comparison, best, compare, sentence

if TYPE_CHECKING:
    from torchcell.metrics.evaluate import Scored


@dataclass(frozen=True)
class Against:
    """One line on the model and a rival, and what it rests on.

    Attributes:
        rival: A key of ``Results.systems``.
        text: For the reader.
        per_metric: One comparison per headline metric, with the rival in the baseline's place; the outcome ``rival
            undefined`` where it has no value, or has one for too few samples.
    """

    rival: str
    text: str
    per_metric: tuple[Comparison, ...]

    def with_note(self, note: str) -> Against:
        """The same, ended by what else is to be known."""
        return replace(self, text=f"{self.text}; {note}")

    def summary(self) -> dict[str, Any]:
        """What ``metrics.json`` holds of it; an undefined number is None."""
        numbers = ("difference", "low", "high", "outcome", "n_samples")
        rows = {row.metric: {name: _plain(getattr(row, name)) for name in numbers} for row in self.per_metric}
        return {"verdict": self.text, "differences": rows}


def against(scored: Sequence[Scored], results: Results, converged: bool | None) -> tuple[Against, ...]:
    """The model against each rival on every headline metric.

    Args:
        scored: Every metric with its resamples.
        results: Predictions of the systems that are compared; where there are several, any of them.
        converged: False withholds the comparison, as it does the verdict.
    """
    headline = [one for one in scored if one.metric.name in HEADLINE[one.results.task]]
    found = []
    for rival in results.rivals:
        rows = [best(one.name, compare(one, [rival]), one.metric.higher_is_better) for one in headline]
        said = UNCONVERGED if converged is False else sentence(rows, "better", "it is undefined on")
        named = [
            replace(row, baseline=rival, outcome="rival undefined" if row.baseline is None else row.outcome)
            for row in rows
        ]
        found.append(Against(rival, f"against {rival}: {said}", tuple(named)))
    return tuple(found)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
