"""``Against``: the model beside another trained model, on the resamples and metrics of the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from torchcell.metrics.comparison import Comparison, Measure, Role
from torchcell.metrics.results import Results
from torchcell.metrics.verdict import compared_words


@dataclass(frozen=True)
class Against:
    """One line on the model and a rival, and what it rests on.

    Attributes:
        rival: A key of ``Results.systems``.
        text: For the reader: what the primary metric says.
        per_metric: One comparison per metric with the rival in the baseline's place, the primary one first; the
            outcome ``rival undefined`` where it has no value, or has one for too few samples.
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
        rows = {row.metric: {name: _plain(asdict(row)[name]) for name in numbers} for row in self.per_metric}
        return {"verdict": self.text, "differences": rows}


def against(
    measures: Mapping[Role, Sequence[Measure]], results: Results, converged: bool | None
) -> tuple[Against, ...]:
    """The model against each rival on every metric that is compared.

    Args:
        measures: By role, see ``comparison.Role``.
        results: Those that decide.
        converged: False withholds the comparison, as it does the verdict.
    """
    found = []
    for rival in results.rivals:
        rows = [_compared(one, rival, role) for role, every in measures.items() for one in every]
        said = compared_words(rows[0], results.design.cluster)
        if rows[0].outcome in ("rival undefined", "undefined"):
            said = f"no comparison: {rows[0].metric} is undefined"
        if converged is False:
            said = f"not converged, so provisional: {said}"
        found.append(Against(rival, f"against {rival}: {said}", tuple(rows)))
    return tuple(found)


def _compared(measure: Measure, rival: str, role: Role) -> Comparison:
    found = measure.against(rival, role)
    missing = replace(Comparison.none(role, measure.name), baseline=rival, outcome="rival undefined")
    return missing if found is None else found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
