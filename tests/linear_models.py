"""One throwaway linear model, and what it needs to read each kind of record; see ``test_record_kinds``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from torchcell.cells.record import CellExpression
from torchcell.cells.simulate import simulate_cells
from torchcell.core.batch import Batch
from torchcell.core.datamodule import RecordDataModule, derangement
from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.drug_response.record import Response
from torchcell.drug_response.simulate import simulate_response
from torchcell.knowledge_graph.record import Links, link_samples
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph


@dataclass(frozen=True, eq=False)
class FeatureBatch(Batch):
    """Inputs as a matrix [B, F]."""

    x: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class LevelsSpec(Spec):
    """The levels of each column, by its name."""

    levels: Mapping[str, tuple[str, ...]]


class Features:
    """All samples as one-hot columns of their levels."""

    def __init__(
        self, columns: dict[str, np.ndarray], levels: Mapping[str, tuple[str, ...]], target: np.ndarray
    ) -> None:
        hot = [columns[name][:, None] == np.array(known)[None, :] for name, known in levels.items()]
        self.x = torch.from_numpy(np.concatenate(hot, axis=1).astype(np.float32))
        self.target = torch.from_numpy(np.asarray(target, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> FeatureBatch:
        return FeatureBatch(self.target[index], index, self.x[index])

    def exchanged(self, index: Tensor, source: Tensor) -> Features:
        twin = object.__new__(Features)
        twin.target, twin.x = self.target, self.x.clone()
        twin.x[index] = self.x[source]
        return twin


@dataclass(frozen=True)
class Request:
    """Samples to predict: named columns and no target."""

    sample_id: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.sample_id)


def columns_of(record: Any) -> dict[str, np.ndarray]:
    if isinstance(record, Request):
        return record.columns
    if isinstance(record, Response):
        return {"drug": record.drug, "cell_line": record.cell_line, "dose": record.dose_value.astype(str)}
    if isinstance(record, CellExpression):
        return {"perturbation": record.perturbation, **record.covariates}
    assert isinstance(record, Links)
    return {"source": record.node_id[record.source_index], "target": record.node_id[record.target_index]}


class LinearDataModule(RecordDataModule):
    """One-hot columns of any record."""

    @staticmethod
    def pack(record: Any, spec: LevelsSpec) -> Features:
        blank = np.full((len(record), len(spec.outputs)), np.nan)
        return Features(columns_of(record), spec.levels, getattr(record, "target", blank))

    @staticmethod
    def read_request(path: str, spec: LevelsSpec) -> Request:
        table = pd.read_csv(path, dtype=str)
        names = list(spec.levels)
        return Request(table["sample_id"].to_numpy(str), {name: table[name].to_numpy(str) for name in names})

    def make_spec(self, base: Spec, train: Any) -> LevelsSpec:
        return LevelsSpec(
            **vars(base), levels={name: tuple(np.unique(values).tolist()) for name, values in columns_of(train).items()}
        )

    def inputs(self) -> tuple[str, ...]:
        return ("everything",)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Features | None:
        assert isinstance(self.packed, Features)
        key = torch.unique(self.packed.x[index], dim=0, return_inverse=True)[1]
        order = derangement(key, generator)
        return None if order is None else self.packed.exchanged(index, index[order])

    def task(self, record: Any) -> str:
        # A response is scored as any expression is: what its own task adds needs its own datamodule.
        return "expression" if isinstance(record, Response) else record.task

    def eval_control(self, record: Any) -> np.ndarray | None:
        if isinstance(record, Response):
            return record.control
        if isinstance(record, CellExpression):
            whole = self.record("train")
            return np.broadcast_to(whole.target[whole.is_control].mean(0), record.target.shape)
        return None


class Linear(Model):
    """y = W x + b."""

    reads = LevelsSpec

    def __init__(self, spec: LevelsSpec, optimizer: Any = None) -> None:
        super().__init__(spec, optimizer)
        width = sum(map(len, spec.levels.values()))
        self.head = nn.Linear(width, len(spec.outputs))

    def forward(self, batch: FeatureBatch) -> Tensor:
        return self.center + self.scale * self.head(batch.x)


def response() -> Response:
    return simulate_response(n_drugs=8, n_lines=3, n_genes=30, n_replicates=4, coverage=1).response


def cells() -> CellExpression:
    record = simulate_cells(scale="lognorm").cells
    return replace(record, X=np.asarray(record.target, dtype=np.float32))


def links() -> Links:
    return link_samples(simulate_knowledge_graph().graph, "CbG", negatives_per_positive=2)
