"""Fitted baselines of drug response: ridge regression and a Gaussian process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch

from torchcell.core.predictor import GroupMeans, Predictor, Ridge, RidgePath
from torchcell.drug_response.baselines import (
    PlateMeans,
    change,
    change_score,
    log_dose,
    molecule_rows,
    require_same_outputs,
)
from torchcell.drug_response.gaussian_process import MOST_TO_WEIGH, GaussianProcessRegression, Wells
from torchcell.drug_response.record import Response
from torchcell.graph.cell_graph import CellGraph


class GaussianProcess(Predictor):
    """Control, its cell line's mean change, and ``GaussianProcessRegression`` on the rest of the change.

    Where the plate is known its mean treated expression, see ``PlateMeans``, stands in place of all but what the
    regression says of the treatment. The weights of its kernels are those of the largest marginal likelihood on the
    training samples, so val is not looked at. It is the prior of ``model.prior=gaussian_process``.

    Args:
        most: Training samples it holds, drawn at random where there are more; its time grows with the cube.
        seed: Of the draw.
        weighed: Training samples that the weights are found with.
    """

    name = "gaussian_process"
    genes: np.ndarray
    molecules: np.ndarray
    lines: np.ndarray
    change: GroupMeans
    controls: GroupMeans
    plates: PlateMeans

    def __init__(self, most: int = 4000, seed: int = 0, weighed: int = MOST_TO_WEIGH) -> None:
        self.most, self.seed, self.weighed = most, seed, weighed

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        assert train.molecules is not None
        self.genes, self.molecules, self.lines = train.genes, train.molecules.id, np.unique(train.cell_line)
        delta, control = change(train), train.control
        self.change = GroupMeans.of(delta, train.cell_line, delta.mean(0))
        self.controls = GroupMeans.of(control, train.cell_line, control.mean(0, dtype=np.float64))
        self.plates = PlateMeans.of(train)
        drawn = np.sort(np.random.default_rng(self.seed).permutation(len(train))[: self.most])
        vectors = torch.from_numpy(np.asarray(train.molecules.vectors, dtype=np.float32))
        known, wells = torch.from_numpy(train.molecules.known), self._wells(train)[torch.from_numpy(drawn)]
        self.regression = GaussianProcessRegression(vectors, known, wells)
        left = train.treated - self._start(train)
        self.regression.fit(torch.from_numpy(left[drawn]), self.seed, self.weighed)
        return self

    def state_dict(self) -> dict[str, Any]:
        """See ``Predictor``; also what the regression holds."""
        return super().state_dict() | {
            "regression": {name: one.numpy() for name, one in self.regression.named_buffers()}
        }

    def load_state_dict(self, state: Mapping[str, Any], graph: Any = None) -> Self:
        """See ``Predictor``."""
        super().load_state_dict(state)
        arrays = {name: torch.from_numpy(np.asarray(value)) for name, value in state["regression"].items()}
        wells = Wells(*(arrays[name] for name in ("drug_N", "line_N", "treatment_N2", "control_NG")))
        self.regression = GaussianProcessRegression(arrays["vector_DF"], arrays["known_D"], wells)
        self.regression.load_state_dict({name: arrays[name] for name in self.regression.state_dict()})
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        by_treatment, by_control = self.parts(record)
        plate = self.plates(record)
        start = np.where(np.isnan(plate), self._start(record) + by_control, plate)
        return (start + by_treatment).astype(np.float32)

    def parts(self, record: Response) -> tuple[np.ndarray, np.ndarray]:
        """What similar treatments and similar controls say, float32 [n, G] each."""
        with torch.no_grad(), self._with_molecules_of(record) as regression:
            by_treatment, by_control = (one.numpy() for one in regression(self._wells(record)))
        return by_treatment, by_control

    @contextmanager
    def _with_molecules_of(self, record: Response) -> Iterator[GaussianProcessRegression]:
        """The regression that knows the vectors of the record's further molecules too, after those of training."""
        molecules, regression = record.molecules, self.regression
        assert molecules is not None
        new = ~np.isin(molecules.id, self.molecules)
        trained = regression.vector_DF, regression.known_D
        regression.vector_DF = torch.cat([trained[0], torch.from_numpy(np.asarray(molecules.vectors[new], np.float32))])
        regression.known_D = torch.cat([trained[1], torch.from_numpy(molecules.known[new])])
        try:
            yield regression
        finally:
            regression.vector_DF, regression.known_D = trained

    def _start(self, record: Response) -> np.ndarray:
        """Control plus the line's mean change; the mean over all lines for an unseen one."""
        return record.control + self.change(record.cell_line)

    def _wells(self, record: Response) -> Wells:
        assert record.molecules is not None
        at = np.searchsorted(self.lines, record.cell_line).clip(max=len(self.lines) - 1)
        line = torch.from_numpy(np.where(self.lines[at] == record.cell_line, at, -1))
        treatment = torch.from_numpy(np.stack([log_dose(record), _log_hours(record)], axis=1).astype(np.float32))
        departure = torch.from_numpy((record.control - self.controls(record.cell_line)).astype(np.float32))
        # Rows of the molecules of training, then those of the record's others.
        names = record.molecules.id
        every = np.concatenate([self.molecules, names[~np.isin(names, self.molecules)]])
        row_of = {name: row for row, name in enumerate(every.tolist())}
        rows = np.array([row_of[name] for name in names.tolist()], dtype=np.int64)
        return Wells(torch.from_numpy(rows[record.drug_index]), line, treatment, departure)


def _log_hours(record: Response) -> np.ndarray:
    return np.log2(np.maximum(record.time.astype(np.float64), 1.0))


ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class _Ridge(Predictor):
    """``offset`` plus a ridge of what is left on ``features``; alpha is chosen on val by the change from control.

    Args:
        alphas: Penalties to choose from, in samples.
    """

    genes: np.ndarray
    lines: np.ndarray
    weights: list[float]
    ridge: Ridge

    def __init__(self, alphas: Sequence[float | int] = ALPHAS) -> None:
        self.alphas = tuple(alphas)

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes, self.lines = train.genes, np.unique(train.cell_line)
        self.prepare(train)
        blocks = self.blocks(train)
        # Each block weighs the same: the mean squared length of its centered rows is 1.
        sizes = [np.square(block - block.mean(0)).sum(1).mean() for block in blocks]
        self.weights = [size**-0.5 if size > 0 else 0.0 for size in sizes]
        path = RidgePath(self.features(train), train.treated - self.offset(train))
        offset = self.offset(val)
        alpha = path.choose(
            self.features(val), self.alphas, lambda found: change_score(val, offset + found) if len(val) else 0.0
        )
        self.ridge = path.at(alpha)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        found = self.ridge.predict(self.features(record))
        return (self.offset(record) + found).astype(np.float32)

    def features(self, record: Response) -> np.ndarray:
        """The weighted blocks side by side, float64 [n, F]."""
        blocks = zip(self.blocks(record), self.weights, strict=True)
        return np.concatenate([weight * block for block, weight in blocks], axis=1)

    def blocks(self, record: Response) -> list[np.ndarray]:
        """Molecule, line as one of those in train (zeros for another), and log dose [n, .] each."""
        line = (record.cell_line[:, None] == self.lines).astype(np.float64)
        return [molecule_rows(record), line, log_dose(record)[:, None]]

    def prepare(self, train: Response) -> None:
        """Fit what the offset needs; nothing by default."""

    def offset(self, record: Response) -> np.ndarray:
        """What the ridge adds to [n, G]."""
        raise NotImplementedError


class RidgeChange(_Ridge):
    """Control plus a ridge for the change."""

    name = "ridge_change"

    def offset(self, record: Response) -> np.ndarray:
        """The sample's control."""
        return record.control.astype(np.float64)


class RidgeLevel(_Ridge):
    """A ridge for the expression itself, which never sees the control."""

    name = "ridge_level"

    def offset(self, record: Response) -> np.ndarray:
        """Nothing."""
        return np.zeros(record.control.shape)


class _MoleculeRidge(_Ridge):
    """A ridge on the molecule alone."""

    def blocks(self, record: Response) -> list[np.ndarray]:
        """The molecule."""
        return [molecule_rows(record)]


class LineMeanRidge(_MoleculeRidge):
    """The line's mean treated expression plus a ridge on the molecule alone for what is left."""

    name = "line_mean_ridge"
    level: GroupMeans

    def prepare(self, train: Response) -> None:
        """The means of the lines."""
        self.level = GroupMeans.of(train.treated, train.cell_line, train.treated.mean(0, dtype=np.float64))

    def offset(self, record: Response) -> np.ndarray:
        """Mean treated expression on the line; over all lines for an unseen one."""
        return self.level(record.cell_line)


class PlateMeanRidge(_MoleculeRidge):
    """The plate's mean treated expression, see ``PlateMeans``, plus a ridge on the molecule for what is left."""

    name = "plate_mean_ridge"
    plates: PlateMeans

    def prepare(self, train: Response) -> None:
        """The means of the plates."""
        self.plates = PlateMeans.of(train)

    def offset(self, record: Response) -> np.ndarray:
        """Mean treated expression on the line and plate."""
        return self.plates(record)
