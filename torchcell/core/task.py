"""``Task``: all that the shared packages need to know of one type of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchcell.core.foreign import ForeignFormat
from torchcell.core.spec import Spec
from torchcell.core.split import SplitMethods, own_clusters
from torchcell.evaluation.registry import BINARY, EXPRESSION, REGRESSION, MetricSet
from torchcell.report.sections import Section

if TYPE_CHECKING:
    import pandas as pd

    from torchcell.core.model import Model


@dataclass(frozen=True)
class Inspection:
    """What is found inside a scored model, beside its scores.

    Attributes:
        collapsed: A sentence for each part of the model that has collapsed; each withholds the verdict.
        checks: Further entries of ``checks`` in ``metrics.json``.
        sections: Further sections of the report by heading, made when it is written.
    """

    collapsed: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Callable[[], list[Section]]] = field(default_factory=dict)


def _nothing(model: Model, table: pd.DataFrame, seed: int) -> Inspection:
    return Inspection()


@dataclass(frozen=True)
class Task:
    """One type of data. Each task package makes one in its ``task.py``, and its datamodule has it as ``TASK``.

    What core, evaluation, report and training do differently for a screen and for a drug response stands here, so that
    none of them depends on the class of a record.

    Attributes:
        name: Name of the task package, e.g. ``screen``.
        spec: Class of the spec of such data.
        metrics: A metric set for each type of target.
        splits: How samples are assigned to train, validation and test.
        inspect: Looks into a scored model; called with the model, the table of ``metrics.csv``, and a seed for samples
            that figures draw.
        foreign: How predictions of other people's models are read; none: they are not.

    Example:
        >>> from torchcell.core.task import Task
        >>> Task("numbers").splits.samples
        'samples'
    """

    name: str
    spec: type[Spec] = Spec
    metrics: tuple[MetricSet, ...] = (REGRESSION, BINARY, EXPRESSION)
    splits: SplitMethods = field(default_factory=lambda: SplitMethods("samples", own_clusters, {}))
    inspect: Callable[[Model, pd.DataFrame, int], Inspection] = _nothing
    foreign: ForeignFormat | None = None

    @property
    def package(self) -> str:
        """The package of these data, e.g. ``torchcell.screen``: the one that defines their spec."""
        return self.spec.__module__.rpartition(".")[0]
