"""What a model of drug response must beat: controls, mean changes, plate means, the nearest drug."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from torchcell.core.predictor import GroupMeans, Predictor, one_thread
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


@dataclass(frozen=True, eq=False)
class PlateMeans:
    """Mean treated expression of training samples on a line and plate.

    Attributes:
        line: Of each line; of all for another.
        source: Of each line and source of plates that has ``FEWEST`` samples; none where sources are not known.
        plate: Of each line and plate likewise.
    """

    line: GroupMeans
    source: GroupMeans | None
    plate: GroupMeans

    @classmethod
    def of(cls, train: Response) -> PlateMeans:
        """Average the training samples."""
        lines = GroupMeans.of(train.treated, train.cell_line, train.treated.mean(0, dtype=np.float64))
        source = None if train.source is None else _frequent(train, train.source)
        return cls(lines, source, _frequent(train, train.plate))

    def __call__(self, record: Response) -> np.ndarray:
        """The mean on each sample's line and plate, float64 [m, G].

        A line with fewer than five training samples on that plate gets its mean in the source of the plates, else over
        all of them, as in ``plate_center``; an unseen line the mean of all. A sample of ``UNKNOWN_PLATE`` has none
        (NaN).
        """
        found_mG = self.line(record.cell_line)
        for means, wanted in ((self.source, record.source), (self.plate, record.plate)):
            if means is None or wanted is None:
                continue
            names = _pairs(record.cell_line, wanted)
            known_m = np.isin(names, means.names)
            found_mG[known_m] = means(names[known_m])
        found_mG[record.plate == UNKNOWN_PLATE] = np.nan
        return found_mG


def _frequent(train: Response, places: np.ndarray) -> GroupMeans:
    """Mean treated expression on each line and place that has enough samples."""
    means = GroupMeans.of(train.treated, _pairs(train.cell_line, places), np.full(len(train.genes), np.nan))
    names, counts = np.unique(_pairs(train.cell_line, places), return_counts=True)
    enough = counts >= FEWEST
    return GroupMeans(names[enough], means.means[np.append(enough, True)])


def _pairs(line: np.ndarray, name: np.ndarray) -> np.ndarray:
    return np.array([f"{a}|{b}" for a, b in zip(line.tolist(), name.tolist(), strict=True)], dtype=str)


def log_dose(record: Response) -> np.ndarray:
    """log10 of the dose in µM, float64 [n]."""
    return np.log10(np.maximum(record.dose_value.astype(np.float64), LEAST_DOSE))


def log_time(record: Response) -> np.ndarray:
    """log2 of the hours, 0 below one [n]."""
    return np.log2(np.maximum(record.time, 1))


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
    defined = norm > 0
    return float(((true * predicted).sum(1)[defined] / norm[defined]).mean()) if defined.any() else -np.inf


class NoChange(Predictor):
    """The control: a drug does nothing."""

    name = "no_change"

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        return record.control.astype(np.float32)


class _MeanDelta(Predictor):
    """Control plus the mean change of the training samples of one group; of all where the group has none."""

    field: ClassVar[str]
    genes: np.ndarray
    delta: GroupMeans

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        delta = change(train)
        self.genes, self.delta = train.genes, GroupMeans.of(delta, getattr(train, self.field), delta.mean(0))
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        return (record.control + self.delta(getattr(record, self.field))).astype(np.float32)


class MeanDeltaLine(_MeanDelta):
    """Control plus the line's mean change; the mean over all lines for an unseen one."""

    name = "mean_delta_line"
    field = "cell_line"


class MeanDeltaDrug(_MeanDelta):
    """Control plus the drug's mean change over lines and doses; the mean over all drugs for an unseen one."""

    name = "mean_delta_drug"
    field = "drug"


class _Controls(NamedTuple):
    """The distinct controls of the training samples of a line on a plate [k, G]."""

    cell_line: str
    plate: str
    control: np.ndarray


class FakePerturbation(Predictor):
    """A control of a training sample of the same line and plate, drawn among those that are not the sample's own.

    Truth and prediction subtract the sample's own control, whose noise they share; this row tells what that is worth.
    Where there is none to draw, as on a plate with one control for all its samples or on an unknown plate, it has
    nothing to say (NaN): the sample's own control would be the row ``no_change`` under another name.

    Args:
        seed: Of the draw, with the sample's name.
    """

    name = "fake_perturbation"

    genes: np.ndarray
    places: list[_Controls]

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes, plate = train.genes, _places(train)
        self.places = []
        for key in sorted(set(plate)):
            rows = np.array([other == key for other in plate])
            self.places.append(_Controls(*key, np.unique(train.control[rows], axis=0)))
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        found = np.full(record.control.shape, np.nan, dtype=np.float32)
        drawn_from = {(one.cell_line, one.plate): one.control for one in self.places}
        for row, key in enumerate(_places(record)):
            every = drawn_from.get(key, found[:0])
            others = every[(every != record.control[row]).any(1)]
            if len(others):
                # By the sample's name, so that the order of the samples plays no part.
                rng = np.random.default_rng([self.seed, zlib.crc32(str(record.sample_id[row]).encode())])
                found[row] = others[rng.integers(len(others))]
        return found


def _places(record: Response) -> list[tuple[str, str]]:
    return list(zip(record.cell_line.tolist(), record.plate.tolist(), strict=True))


class Constant(Predictor):
    """One number for every gene of every sample: the mean of all treated values in train."""

    name = "constant"
    mean: float

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.mean = float(train.treated.mean(dtype=np.float64))
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        return np.full(record.treated.shape, self.mean, dtype=np.float32)


class GeneMean(Predictor):
    """Mean treated expression of each gene."""

    name = "gene_mean"
    genes: np.ndarray
    mean_G: np.ndarray

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes, self.mean_G = train.genes, train.treated.mean(0, dtype=np.float64)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        return np.tile(self.mean_G.astype(np.float32), (len(record), 1))


class LineGeneMean(Predictor):
    """Mean treated expression of each gene on the sample's line; on a line without training samples, over all lines."""

    name = "line_gene_mean"
    genes: np.ndarray
    level: GroupMeans

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes, mean_G = train.genes, train.treated.mean(0, dtype=np.float64)
        self.level = GroupMeans.of(train.treated, train.cell_line, mean_G)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        return self.level(record.cell_line).astype(np.float32)


class PlateGeneMean(Predictor):
    """Mean treated expression of each gene on the sample's line and plate, see ``PlateMeans``."""

    name = "plate_gene_mean"
    genes: np.ndarray
    plates: PlateMeans

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes, self.plates = train.genes, PlateMeans.of(train)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        return self.plates(record).astype(np.float32)


TIE = 1e-6
"""Doses and times that differ by less, in orders of magnitude and doublings, are one."""


class _Table(NamedTuple):
    """The molecules of the training samples, see ``Molecules``."""

    id: np.ndarray
    vectors: np.ndarray
    known: np.ndarray


class NearestDrug(Predictor):
    """Control plus the mean change of the nearest training samples.

    Among the samples of the line (of all lines, if it has none) the drug of the highest Tanimoto similarity is taken,
    which for a drug seen there is itself; of its samples those of the nearest log dose, then time; their mean, over all
    drugs and samples that tie. An unseen drug without a vector gets the line's mean change.
    """

    name = "nearest_drug"
    genes: np.ndarray
    table: _Table
    drug: np.ndarray
    cell_line: np.ndarray
    dose: np.ndarray
    time: np.ndarray
    line_delta: GroupMeans

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        assert train.molecules is not None
        self.genes, self.drug, self.cell_line = train.genes, train.drug_index, train.cell_line
        self.table = _Table(train.molecules.id, train.molecules.vectors, train.molecules.known)
        self.delta, self.dose, self.time = change(train), log_dose(train), log_time(train)
        self.line_delta = GroupMeans.of(self.delta, train.cell_line, self.delta.mean(0))
        control, row = np.unique(train.control, axis=0, return_inverse=True)
        self._measured = {"treated": train.treated, "control": control, "control_row": row.ravel()}
        return self

    def state_dict(self) -> dict[str, Any]:
        """See ``Predictor``; also what was measured, each control once, of which the changes are made again."""
        return super().state_dict() | self._measured

    def load_state_dict(self, state: Mapping[str, Any], graph: Any = None) -> Self:
        """See ``Predictor``."""
        super().load_state_dict(state)
        self._measured = {name: state[name] for name in ("treated", "control", "control_row")}
        self.delta = state["treated"].astype(np.float64) - state["control"][state["control_row"]]
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        drug, molecules, table = record.drug_index, record.molecules, self.table
        assert molecules is not None
        with one_thread():
            like = tanimoto(molecules.vectors, table.vectors)
        # Drugs without a vector are like none but themselves.
        like = np.where(molecules.known[:, None] & table.known, like, -np.inf)
        like[molecules.id[:, None] == table.id] = np.inf
        delta_nG = self.line_delta(record.cell_line)
        dose, time = log_dose(record), log_time(record)
        for row in range(len(record)):
            near = np.flatnonzero(self.cell_line == record.cell_line[row])
            near = near if len(near) else np.arange(len(self.delta))
            similar = like[drug[row], self.drug[near]]
            if similar.max() == -np.inf:
                continue
            near = near[similar == similar.max()]
            for theirs_own, mine in ((self.dose, dose[row]), (self.time, time[row])):
                gap = np.abs(theirs_own[near] - mine)
                near = near[gap <= gap.min() + TIE]
            delta_nG[row] = self.delta[near].mean(0)
        return (record.control + delta_nG).astype(np.float32)
