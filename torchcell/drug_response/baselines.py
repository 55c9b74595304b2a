"""What a model of drug response must beat: controls, mean changes, plate means, the nearest drug."""

from __future__ import annotations

import zlib
from typing import Self

import numpy as np

from torchcell.core.baseline import Baseline, group_means, one_thread
from torchcell.drug_response.molecules import tanimoto
from torchcell.drug_response.plates import FEWEST
from torchcell.drug_response.record import UNKNOWN_PLATE, Response
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.io.quantities import LEAST_DOSE


def require_same_outputs(record: Response, genes: np.ndarray) -> None:
    """Refuse a record over another gene list than the one fitted on: columns would mean other genes."""
    if not np.array_equal(record.genes, genes):
        raise InputError(
            f"{record.name} has another gene list than the baseline was fitted on; take train and test from one record"
        )


def change(record: Response) -> np.ndarray:
    """Treated minus the sample's own control, float64 [n, G]."""
    return record.treated.astype(np.float64) - record.control


def plate_means(train: Response, asked: Response) -> np.ndarray:
    """Mean treated expression in train on each asked sample's line and plate, float64 [m, G].

    A line with fewer than five training samples on that plate gets its mean in the source of the plates, else over all
    of them, as in ``plate_centre``; an unseen line the mean of all. A sample of ``UNKNOWN_PLATE`` has none (NaN).
    """
    found_mG = group_means(train.treated, train.cell_line, asked.cell_line, train.treated.mean(0, dtype=np.float64))
    for field in ("source", "plate"):
        names, wanted = getattr(train, field), getattr(asked, field)
        if names is None or wanted is None:
            continue
        names, wanted = _pairs(train.cell_line, names), _pairs(asked.cell_line, wanted)
        unique, counts = np.unique(names, return_counts=True)
        known_m = np.isin(wanted, unique[counts >= FEWEST])
        found_mG[known_m] = group_means(train.treated, names, wanted[known_m], train.treated[0])
    found_mG[asked.plate == UNKNOWN_PLATE] = np.nan
    return found_mG


def _pairs(line: np.ndarray, name: np.ndarray) -> np.ndarray:
    return np.array([f"{a}|{b}" for a, b in zip(line.tolist(), name.tolist(), strict=True)], dtype=str)


def log_dose(record: Response) -> np.ndarray:
    """log10 of the dose in µM, float64 [n]."""
    return np.log10(np.maximum(record.dose_value.astype(np.float64), LEAST_DOSE))


def molecule_rows(record: Response) -> np.ndarray:
    """Vector of each sample's drug and, behind it, whether it has none, float64 [n, F + 1]."""
    drug, molecules = record.drug_index, record.molecules
    assert molecules is not None
    table = np.column_stack([molecules.vectors, ~molecules.known]).astype(np.float64)
    return table[drug]


def change_score(record: Response, prediction: np.ndarray) -> float:
    """Mean over samples of the Pearson correlation over genes of true and predicted change from control.

    Args:
        record: With its measurements.
        prediction: Predicted treated expression [n, G].

    Returns:
        The score over the samples where it is defined; minus infinity where there is none.
    """
    true, predicted = change(record), prediction - record.control.astype(np.float64)
    true, predicted = true - true.mean(1, keepdims=True), predicted - predicted.mean(1, keepdims=True)
    norm = np.linalg.norm(true, axis=1) * np.linalg.norm(predicted, axis=1)
    held = norm > 0
    return float(((true * predicted).sum(1)[held] / norm[held]).mean()) if held.any() else -np.inf


class NoChange(Baseline):
    """The control: a drug does nothing."""

    name = "no_change"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        return record.control.astype(np.float32)


class _MeanDelta(Baseline):
    """Control plus the mean change of the training samples of one group; of all where the group has none."""

    field: str

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, self.names, self.delta = train.genes, getattr(train, self.field), change(train)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.genes)
        delta_nG = group_means(self.delta, self.names, getattr(record, self.field), self.delta.mean(0))
        return (record.control + delta_nG).astype(np.float32)


class MeanDeltaLine(_MeanDelta):
    """Control plus the line's mean change; the mean over all lines for an unseen one."""

    name = "mean_delta_line"
    field = "cell_line"


class MeanDeltaDrug(_MeanDelta):
    """Control plus the drug's mean change over lines and doses; the mean over all drugs for an unseen one."""

    name = "mean_delta_drug"
    field = "drug"


class FakePerturbation(Baseline):
    """A control of a training sample of the same line and plate, drawn among those that are not the sample's own.

    Truth and prediction subtract the sample's own control, whose noise they share; this row tells what that is worth.
    Where there is none to draw, as on a plate with one control for all its samples or on an unknown plate, it has
    nothing to say (NaN): the sample's own control would be the row ``no_change`` under another name.

    Args:
        seed: Of the draw, with the sample's name.
    """

    name = "fake_perturbation"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, place = train.genes, _places(train)
        self.drawn_from: dict[tuple[str, str], np.ndarray] = {}
        for key in set(place):
            rows = np.array([other == key for other in place])
            self.drawn_from[key] = np.unique(train.control[rows], axis=0)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.genes)
        found = np.full(record.control.shape, np.nan, dtype=np.float32)
        for row, key in enumerate(_places(record)):
            every = self.drawn_from.get(key, found[:0])
            others = every[(every != record.control[row]).any(1)]
            if len(others):
                # By the sample's name, so that the order of the samples plays no part.
                rng = np.random.default_rng([self.seed, zlib.crc32(str(record.sample_id[row]).encode())])
                found[row] = others[rng.integers(len(others))]
        return found


def _places(record: Response) -> list[tuple[str, str]]:
    return list(zip(record.cell_line.tolist(), record.plate.tolist(), strict=True))


class Constant(Baseline):
    """One number for every gene of every sample: the mean of all treated values in train."""

    name = "constant"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.mean = float(train.treated.mean(dtype=np.float64))
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        return np.full(record.treated.shape, self.mean, dtype=np.float32)


class GeneMean(Baseline):
    """Mean treated expression of each gene."""

    name = "gene_mean"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.genes, self.mean_G = train.genes, train.treated.mean(0, dtype=np.float64)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.genes)
        return np.tile(self.mean_G.astype(np.float32), (len(record), 1))


class LineGeneMean(Baseline):
    """Mean treated expression of each gene on the sample's line; on a line without training samples, over all lines."""

    name = "line_gene_mean"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train, self.mean_G = train, train.treated.mean(0, dtype=np.float64)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        level_nG = group_means(self.train.treated, self.train.cell_line, record.cell_line, self.mean_G)
        return level_nG.astype(np.float32)


class PlateGeneMean(Baseline):
    """Mean treated expression of each gene on the sample's line and plate, see ``plate_means``."""

    name = "plate_gene_mean"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train = train
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        return plate_means(self.train, record).astype(np.float32)


TIE = 1e-6
"""Doses and times that differ by less, in orders of magnitude and doublings, are one."""


class NearestDrug(Baseline):
    """Control plus the mean change of the nearest training samples.

    Among the samples of the line (of all lines, if it has none) the drug of the highest Tanimoto similarity is taken,
    which for a drug seen there is itself; of its samples those of the nearest log dose, then time; their mean, over all
    drugs and samples that tie. An unseen drug without a vector gets the line's mean change.
    """

    name = "nearest_drug"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Baseline``."""
        self.train, self.delta = train, change(train)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Baseline``."""
        require_same_outputs(record, self.train.genes)
        drug, molecules = record.drug_index, record.molecules
        theirs, table = self.train.drug_index, self.train.molecules
        assert molecules is not None
        assert table is not None
        with one_thread():
            like = tanimoto(molecules.vectors, table.vectors)
        # Drugs without a vector are like none but themselves.
        like = np.where(molecules.known[:, None] & table.known, like, -np.inf)
        like[molecules.id[:, None] == table.id] = np.inf
        overall = self.delta.mean(0)
        delta_nG = group_means(self.delta, self.train.cell_line, record.cell_line, overall)
        dose, time = log_dose(record), np.log2(np.maximum(record.time, 1))
        own_dose, own_time = log_dose(self.train), np.log2(np.maximum(self.train.time, 1))
        for row in range(len(record)):
            near = np.flatnonzero(self.train.cell_line == record.cell_line[row])
            near = near if len(near) else np.arange(len(self.train))
            similar = like[drug[row], theirs[near]]
            if similar.max() == -np.inf:
                continue
            near = near[similar == similar.max()]
            for theirs_own, mine in ((own_dose, dose[row]), (own_time, time[row])):
                gap = np.abs(theirs_own[near] - mine)
                near = near[gap <= gap.min() + TIE]
            delta_nG[row] = self.delta[near].mean(0)
        return (record.control + delta_nG).astype(np.float32)
