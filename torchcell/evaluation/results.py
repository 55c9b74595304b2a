"""``Results``: what every system predicted for one part of a split; the only input of every metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from torchcell.evaluation.metrics import ProfileContext, Profiles
from torchcell.evaluation.registry import is_registered, metric_set
from torchcell.io.errors import InputError, near, some

_RESERVED = ("sample_id", "target", "measured")


NETWORK_ALONE = "network_alone"
"""Row of what the network of a model with a prior predicts without it; the prior's own row is its baseline's."""


@dataclass(frozen=True)
class Design:
    """How the part was made, for the text of the verdict.

    Attributes:
        cluster: Name of a cluster, which the bootstrap draws, e.g. ``query gene``.
        n_clusters: Number of clusters in all parts, which all folds together test; none: unknown.
        split: Method of the split.
        n_folds: Number of its folds.
        ceiling: Name of the ceiling in the verdict: ``ceiling`` of a noiseless prediction, or ``one replicate``.
    """

    cluster: str = "cluster"
    n_clusters: int | None = None
    split: str = ""
    n_folds: int | None = None
    ceiling: str = "ceiling"


@dataclass(frozen=True, eq=False)
class Results:
    """Measured values and the predictions of every system on the same samples; n samples, T outputs.

    Attributes:
        sample_id: Unique names of the samples [n].
        group: The cluster of each sample, e.g. its query gene [n], or its clusters with empty texts as pads [n, K]: the
            bootstrap draws these.
        outputs: Names of the outputs (phenotypes, or genes of an expression task) [T].
        measured: Measured values in their units [n, T]; NaN is a missing value. Of a ranking 1, and NaN where the
            sample is not ranked for this output.
        systems: Predictions by system [n, T], in the units of ``measured``; probabilities or scores for a
            binary task, ranks from 1 for a ranking. NaN where a system has no prediction.
        part: The part of the split, e.g. ``test``.
        task: Name of the metric set that scores it.
        model: The system under test, a key of ``systems``.
        active: Outputs that the model was trained on, bool [T]; the others are constant. None: all.
        ceiling: A replicate ceiling, a key of ``systems``: shown, never a baseline.
        comparators: Other trained models, keys of ``systems``: compared one by one, never baselines.
        set_size: Number of perturbed genes per sample [n].
        context: Controls and centers, where outputs are genes.
        decides: Whether the verdict rests on these results, where the same part is scored in several ways.
        design: How the part was made.
        level: What a sample is, where the same data are scored at several levels, e.g. ``condition``; it is the
            prefix of the metrics' names.

    Raises:
        InputError: Shapes that don't fit, ids used twice, infinite predictions, unknown names.
    """

    sample_id: np.ndarray
    group: np.ndarray
    outputs: tuple[str, ...]
    measured: np.ndarray
    systems: Mapping[str, np.ndarray]
    part: str = "test"
    task: str = "regression"
    set_size: np.ndarray | None = None
    context: ProfileContext = field(default_factory=ProfileContext)
    level: str = ""
    model: str = "model"
    active: np.ndarray | None = None
    ceiling: str | None = None
    comparators: tuple[str, ...] = ()
    decides: bool = True
    design: Design = Design()

    def __len__(self) -> int:
        return len(self.sample_id)

    def __post_init__(self) -> None:
        problems = [*self._wrong_names(), *self._wrong_shapes()] or self._wrong_values()
        if problems:
            raise InputError(f"results of part {self.part!r}: " + "; ".join(problems))

    @property
    def n_clusters(self) -> int:
        """Distinct clusters of these samples."""
        return clusters_in(self.group)

    @property
    def per_gene(self) -> bool:
        """Whether each sample is scored over the outputs, which are genes."""
        return metric_set(self.task).per_gene

    def profiles(self, prediction: np.ndarray) -> Profiles:
        """Truth, ``prediction`` [n, T] and controls, for the metrics over genes."""
        truth = np.asarray(self.measured, dtype=np.float64)
        return Profiles(truth, np.asarray(prediction, dtype=np.float64), self.context)

    @property
    def rank_within(self) -> np.ndarray | None:
        """Name of the group within which a sample is ranked [n]; None: all samples."""
        return getattr(self.context, "rank_within", None)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Systems that the model must beat: all but the model, its comparators and the ceiling."""
        return tuple(name for name in self.systems if name not in (self.model, *self.comparators, self.ceiling))

    @property
    def ordered(self) -> tuple[str, ...]:
        """The model, its comparators, the baselines in given order, then the ceiling."""
        last = () if self.ceiling is None else (self.ceiling,)
        return (self.model, *self.comparators, *self.baselines, *last)

    def to_frame(self) -> pd.DataFrame:
        """The table of ``predictions.parquet``: one row per sample and output, one column per system."""
        t = len(self.outputs)
        columns: dict[str, np.ndarray] = {
            "sample_id": np.repeat(np.asarray(self.sample_id, dtype=object), t),
            "target": np.tile(np.asarray(self.outputs, dtype=object), len(self)),
            "measured": np.asarray(self.measured).reshape(-1),
        }
        columns |= {name: np.asarray(self.systems[name]).reshape(-1) for name in self.ordered}
        return pd.DataFrame(columns)

    def _wrong_names(self) -> list[str]:
        problems = []
        if not is_registered(self.task):
            problems.append(f"unknown task {self.task!r}")
        comparators = [("comparator", name) for name in self.comparators]
        for role, name in (("model", self.model), *comparators, ("ceiling", self.ceiling)):
            if name is not None and name not in self.systems:
                hint = some(near(name, list(self.systems)) or self.systems)
                problems.append(f"the {role} {name!r} is not among the systems; there are {hint}")
        if clash := [name for name in self.systems if name in _RESERVED]:
            problems.append(f"systems named like a column of the predictions table: {some(clash)}; rename them")
        return problems

    def _wrong_shapes(self) -> list[str]:
        n, t = len(self.sample_id), len(self.outputs)
        shapes: dict[str, tuple[tuple[int, ...], np.ndarray | None]]
        per_sample = (n, *np.shape(self.group)[1:2])
        shapes = {"group": (per_sample, self.group), "measured": ((n, t), self.measured)}
        shapes |= {"set_size": ((n,), self.set_size), "active": ((t,), self.active)}
        shapes |= {f"system {name!r}": ((n, t), value) for name, value in self.systems.items()}
        wrong = [
            f"{name} has shape {np.shape(value)}, expected {shape}"
            for name, (shape, value) in shapes.items()
            if value is not None and np.shape(value) != shape
        ]
        return wrong + self.context.problems(n, t)

    def _wrong_values(self) -> list[str]:
        problems = [] if len(self.sample_id) else ["no samples"]
        unique, counts = np.unique(np.asarray(self.sample_id).astype(str), return_counts=True)
        if (counts > 1).any():
            problems.append(f"sample ids used twice: {some(unique[counts > 1])}; drop what a sampler padded")
        for name, value in [("measured", self.measured), *self.systems.items()]:
            infinite = np.isinf(value).any(axis=1)
            if infinite.any():
                ids = some(np.asarray(self.sample_id)[infinite])
                problems.append(f"{name!r} is infinite on {infinite.sum()} sample(s): {ids}; use NaN for no value")
        return problems


def clusters_in(group: np.ndarray) -> int:
    """Distinct clusters among those of samples [n] or [n, K], empty texts being pads."""
    return len(set(np.unique(group).tolist()) - ({""} if np.ndim(group) == 2 else set()))
