"""``Task``: all that the shared packages need to know of one kind of data."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchcell.core.split import SplitMethods, own_clusters


@dataclass(frozen=True)
class Task:
    """One kind of data. Each task package makes one in its ``task.py``, and its datamodule has it as ``TASK``.

    What core, evaluation, report and training do differently for a screen and for a drug response stands here, so that
    none of them asks what kind of record it has.

    Attributes:
        name: Of the task package, e.g. ``screen``.
        splits: How samples are assigned to train, validation and test.

    Example:
        >>> from torchcell.core.task import Task
        >>> Task("numbers").splits.samples
        'samples'
    """

    name: str
    splits: SplitMethods = field(default_factory=lambda: SplitMethods("samples", own_clusters, {}))
