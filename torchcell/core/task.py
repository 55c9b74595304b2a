"""``Task``: all that the shared packages need to know of one kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchcell.core.spec import Spec
from torchcell.core.split import SplitMethods, own_clusters
from torchcell.evaluation.registry import BINARY, EXPRESSION, REGRESSION, MetricSet
from torchcell.report.sections import Section

if TYPE_CHECKING:
    import pandas as pd

    from torchcell.core.model import Model


@dataclass(frozen=True)
class Inspection:
    """What a scored model shows of itself beside its scores.

    Attributes:
        collapsed: What has collapsed within it, in words; each withholds the verdict.
        checks: Further entries of ``checks`` in ``metrics.json``.
        sections: For the report by heading, made when it is written.
    """

    collapsed: tuple[str, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Callable[[], list[Section]]] = field(default_factory=dict)


def _nothing(model: Model, table: pd.DataFrame, seed: int) -> Inspection:
    return Inspection()


@dataclass(frozen=True)
class Task:
    """One kind of data. Each task package makes one in its ``task.py``, and its datamodule has it as ``TASK``.

    What core, evaluation, report and training do differently for a screen and for a drug response stands here, so that
    none of them asks what kind of record it has.

    Attributes:
        name: Of the task package, e.g. ``screen``.
        spec: What a model knows about such data.
        metrics: How each kind of target that it has is scored.
        splits: How samples are assigned to train, validation and test.
        inspect: (model with the weights that were scored, its metrics and its baselines' as in ``metrics.csv``, seed of
            what figures draw) -> what there is to see in it.

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
