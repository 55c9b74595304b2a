"""A fifth task in one file: a list of numbers in, a list of numbers out; see ``test_fifth_task``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchcell.core.batch import Batch
from torchcell.core.datamodule import RecordDataModule, derangement
from torchcell.core.model import Model
from torchcell.core.predictor import Predictor
from torchcell.core.spec import Spec
from torchcell.core.split import SplitMethods, own_clusters
from torchcell.core.task import Inspection, Task
from torchcell.evaluation.metrics import mae, pearson
from torchcell.evaluation.registry import Metric, MetricSet, register
from torchcell.evaluation.streaming import StreamingCorrelation
from torchcell.io.fingerprint import record_fingerprint
from torchcell.report.sections import Section

CURVES = register(
    MetricSet(
        "curves",
        (
            Metric("likeness", pearson, 1, 0.0, True, "linear correlation over samples"),
            Metric("distance", mae, 0, "mean", False, "mean absolute error"),
        ),
        primary=("likeness",),
        calibration=(),
        beside=("likeness", "distance"),
        streaming=StreamingCorrelation,
    )
)


def largest(record: Curves, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The samples of largest dose are test, those below it validation: an extrapolation."""
    rank = np.argsort(np.argsort(record.dose[:, 0]))
    part = np.where(rank >= 0.8 * len(rank), "test", np.where(rank >= 0.6 * len(rank), "val", "train"))
    return part, record.sample_id, "sample"


def inspect(model: Model, table: Any, seed: int) -> Inspection:
    return Inspection((), {"slope": {"status": "ok"}}, {"Slopes": lambda: [Section("Slopes", "They rise.")]})


TASK = Task(
    "curves", metrics=(CURVES,), splits=SplitMethods("curves", own_clusters, {"largest": largest}), inspect=inspect
)


@dataclass(frozen=True, eq=False)
class Curves:
    """n doses [n, 3] and responses [n, 1]."""

    name: str
    sample_id: np.ndarray
    dose: np.ndarray
    target: np.ndarray
    task: str = "curves"
    phenotype_names: tuple[str, ...] = ("response",)

    def __len__(self) -> int:
        return len(self.sample_id)

    def validate(self) -> Curves:
        return self

    def subset(self, at: np.ndarray) -> Curves:
        return replace(self, sample_id=self.sample_id[at], dose=self.dose[at], target=self.target[at])

    def blind(self) -> Curves:
        return replace(self, target=np.full_like(self.target, np.nan))

    def fingerprint(self) -> str:
        return record_fingerprint(self)


def curves(n: int = 300, seed: int = 0) -> Curves:
    rng = np.random.default_rng(seed)
    dose = rng.normal(size=(n, 3)).astype(np.float32)
    target = dose @ np.array([[1.0], [-2.0], [0.5]], dtype=np.float32) + rng.normal(0, 0.3, (n, 1)).astype(np.float32)
    return Curves("curves", np.array([f"c{i}" for i in range(n)]), dose, target.astype(np.float32))


@dataclass(frozen=True, eq=False)
class CurveBatch(Batch):
    """Doses [B, 3]."""

    dose: Tensor


class PackedCurves:
    """All curves as tensors."""

    def __init__(self, record: Curves) -> None:
        self.dose, self.target = torch.from_numpy(record.dose), torch.from_numpy(record.target)

    def __len__(self) -> int:
        return len(self.dose)

    def __getitem__(self, index: Tensor) -> CurveBatch:
        return CurveBatch(self.target[index], index, self.dose[index])

    def exchanged(self, index: Tensor, source: Tensor) -> PackedCurves:
        found = object.__new__(PackedCurves)
        found.target, found.dose = self.target, self.dose.clone()
        found.dose[index] = self.dose[source]
        return found


class CurveDataModule(RecordDataModule):
    """Curves as batches."""

    TASK = TASK

    @staticmethod
    def pack(record: Curves, spec: Spec) -> PackedCurves:
        return PackedCurves(record)

    def inputs(self) -> tuple[str, ...]:
        return ("dose",)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> PackedCurves:
        return self.packed.exchanged(index, index[derangement(torch.arange(len(index)), generator)])


class LinearCurve(Model):
    """y = W x + b."""

    def __init__(self, spec: Spec, optimizer: Any = None) -> None:
        super().__init__(spec, optimizer)
        self.linear = nn.Linear(3, len(spec.outputs))

    def forward(self, batch: CurveBatch) -> Tensor:
        return self.center + self.scale * self.linear(batch.dose)


class MeanCurve(Predictor):
    """The mean of training."""

    name = "mean_curve"
    mean: np.ndarray

    def fit(self, train: Curves, val: Curves, graph: Any) -> MeanCurve:
        self.mean = train.target.mean(0)
        return self

    def predict(self, record: Curves) -> np.ndarray:
        return np.tile(self.mean, (len(record), 1)).astype(np.float32)


class SteepestCurve(MeanCurve):
    """The first dose alone, times the slope of training."""

    name = "steepest_curve"
    slope: np.ndarray

    def fit(self, train: Curves, val: Curves, graph: Any) -> SteepestCurve:
        super().fit(train, val, graph)
        x = train.dose[:, 0] - train.dose[:, 0].mean()
        self.slope = np.array([float(x @ train.target[:, 0] / (x @ x))])
        return self

    def predict(self, record: Curves) -> np.ndarray:
        return (super().predict(record) + record.dose[:, :1] * self.slope).astype(np.float32)
