"""``Experts``: closed-form predictions of profiles after a drug, one a source, as named columns.

Columns are of two groups. Those of the *level* say how treated wells of the sample's cell line and plate look, as read
off the sample's own control; where the plate is known, its mean stands in their place. Those of the *treatment* say
how wells of like drugs, doses and cell lines departed from the mean of their plates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from torchcell.core.predictor import GroupMeans, one_thread
from torchcell.drug_response.baselines import PlateMeans, change, log_dose, log_time
from torchcell.drug_response.baselines_fitted import GaussianProcess
from torchcell.drug_response.molecules import Molecules, tanimoto
from torchcell.drug_response.plates import plate_center
from torchcell.drug_response.record import Response

LEVEL = ("line change", "control", "control plate", "gaussian process of controls")
"""Sources that say how treated wells of a plate look; all others say what the treatment does."""
WIDTHS = (1.0, 0.25)
"""Of the bell curve over controls, in root mean squares of their departure from the mean of their cell line."""
PLATE_WIDTHS = (1.0, 0.5, 0.05)
"""The same for the mean of plates; the last takes the plate whose control this is."""
POWERS = (1, 2, 4)
"""Of the Tanimoto similarity that weighs the votes of drugs."""
EVIDENCE = 1.0
"""Well that says nothing, added to the votes."""
KERNEL_RIDGES = (
    ("structure", 3.0),
    ("structure", 30.0),
    ("vector", 10.0),
    ("structure dose", 10.0),
    ("structure line", 10.0),
)
"""Kernels and penalties, in samples."""
RANK = 20
"""Principal components of the training changes that smoothed columns are made of."""
ROWS = 256
"""Samples predicted at once: 40 columns of 978 genes are 40 MB."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What experts take from n training samples over G genes; with the Gaussian process it is all that they need.

    Attributes:
        level: Mean treated expression of each line.
        change: Mean change from the control of each line.
        controls: Mean control of each line.
        basal: Mean profile of the untreated line.
        plates: Mean treated expression of each plate.
        molecule: Names of the drugs [D].
        vectors: Of the drugs, zeros where there is none, and whether there is none [D, V + 1].
        drug: Row of each sample's drug [n].
        line: Name of each sample's line [n].
        condition: log10 of the dose in µM and log2 of the hours [n, 2].
        control: The distinct controls, as departures from the mean of their line [c, G].
        control_row: Of each sample [n].
        width: Root mean square of the departures.
        plate: The distinct means of plates, as departures from the level of their line [p, G].
        plate_row: Of each sample [n].
        treated: Departure of each sample from the level of its line [n, G].
        departure: The same from the other wells of its plate [n, G].
        steady: 1 for a sample that departs by the median length or less, the squared ratio of the two for another [n].
        drawn: Samples that kernel ridges are fitted to [N].
        dual: Of each kernel ridge [R, N, G].
        direction: Principal components of ``departure`` [K, G].
    """

    level: GroupMeans
    change: GroupMeans
    controls: GroupMeans
    basal: GroupMeans
    plates: PlateMeans
    molecule: np.ndarray
    vectors: np.ndarray
    drug: np.ndarray
    line: np.ndarray
    condition: np.ndarray
    control: np.ndarray
    control_row: np.ndarray
    width: float
    plate: np.ndarray
    plate_row: np.ndarray
    treated: np.ndarray
    departure: np.ndarray
    steady: np.ndarray
    drawn: np.ndarray
    dual: np.ndarray
    direction: np.ndarray


def learn(train: Response, drawn: np.ndarray) -> Learned:
    """Take from training samples what experts need.

    Args:
        train: n samples.
        drawn: Those that kernel ridges are fitted to [N].
    """
    assert train.molecules is not None
    lines, basal = train.cell_line, train.control if train.basal is None else train.basal
    level, controls = (
        GroupMeans.of(values, lines, values.mean(0, dtype=np.float64)) for values in (train.treated, train.control)
    )
    delta, plates = change(train), PlateMeans.of(train)
    own_level = level(lines)
    control, control_row = _distinct(train.control - controls(lines))
    plate, plate_row = _distinct(plates(train) - own_level)
    departure = (train.treated - departed_from(train)).astype(np.float32)
    with one_thread():
        gram = (departure - departure.mean(0)).T.astype(np.float64) @ (departure - departure.mean(0))
        direction = scipy.linalg.eigh(gram)[1][:, : -min(RANK, *departure.shape) - 1 : -1].T.astype(np.float32)
    learned = Learned(
        level=level,
        change=GroupMeans.of(delta, lines, delta.mean(0)),
        controls=controls,
        basal=GroupMeans.of(basal, lines, basal.mean(0, dtype=np.float64)),
        plates=plates,
        molecule=train.molecules.id,
        vectors=_vectors(train.molecules, np.arange(len(train.molecules))),
        drug=train.drug_index,
        line=lines,
        condition=_condition(train),
        control=control,
        control_row=control_row,
        width=float(np.sqrt(np.mean(np.square(control[control_row], dtype=np.float64)))),
        plate=plate,
        plate_row=plate_row,
        treated=(train.treated - own_level).astype(np.float32),
        departure=departure,
        steady=steadiness(length := lengths(departure), float(np.median(length))).astype(np.float32),
        drawn=drawn,
        dual=np.empty((0, len(drawn), len(train.genes)), dtype=np.float32),
        direction=direction,
    )
    return _with_duals(learned, train, drawn)


def _with_duals(learned: Learned, train: Response, drawn: np.ndarray) -> Learned:
    part = train.subset(drawn)
    near, target, duals = Near.of(learned, part, drawn), learned.departure[drawn].astype(np.float64), []
    with one_thread():
        for kernel, penalty in KERNEL_RIDGES:
            matrix = _kernel(near, kernel)
            size = max(float(np.trace(matrix)) / max(len(drawn), 1), 1e-12)
            solid = matrix.astype(np.float64) + penalty * size * np.eye(len(drawn))
            duals.append(scipy.linalg.solve(solid, target, assume_a="pos").astype(np.float32))
    return replace(learned, dual=np.stack(duals))


def departed_from(train: Response) -> np.ndarray:
    """Mean treated expression of the other samples of each sample's line on its plate, float32 [n, G].

    A sample that is alone on its line departs from its control.
    """
    center = plate_center(train, np.ones(len(train), dtype=bool))
    return np.where(np.isnan(center), train.control, center).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Near:
    """How near m samples are to N training samples, float32 [m, N] each.

    Attributes:
        like: Tanimoto similarity of the drugs; 1 with the same drug, 0 where either has no vector.
        structure: Product of the drugs' vectors of length 1, plus 1 for what all drugs share; drugs without a vector
            are alike.
        vector: The same of vectors in units of their root mean square length.
        same_drug: Whether it is the same drug.
        same_line: Whether it is the same line.
        like_line: Squared correlation of the lines' basal profiles after the mean over lines is removed, 0 where it is
            negative and with the same line.
        dose: A bell curve of log dose and log time.
    """

    like: np.ndarray
    structure: np.ndarray
    vector: np.ndarray
    same_drug: np.ndarray
    same_line: np.ndarray
    like_line: np.ndarray
    dose: np.ndarray

    @classmethod
    def of(cls, learned: Learned, record: Response, among: np.ndarray) -> Near:
        """Hold the samples of a record against training samples ``among`` [N]."""
        assert record.molecules is not None
        used, row = np.unique(record.drug_index, return_inverse=True)
        vectors, others = _vectors(record.molecules, used), learned.vectors
        same = record.molecules.id[used][:, None] == learned.molecule
        size = float(np.sqrt(np.square(others).sum(1).mean())) or 1.0
        with one_thread():
            like = np.where(same, 1, np.maximum(tanimoto(vectors[:, :-1], others[:, :-1]), 0)).astype(np.float32)
            structure = _unit(vectors) @ _unit(others).T + np.float32(1)
            vector = (vectors / size) @ (others / size).T + np.float32(1)
        of_drug = np.ix_(row, learned.drug[among])
        apart = _condition(record)[:, None] - learned.condition[among]
        return cls(
            like=like[of_drug],
            structure=structure[of_drug],
            vector=vector[of_drug].astype(np.float32),
            same_drug=same[of_drug].astype(np.float32),
            same_line=(record.cell_line[:, None] == learned.line[among]).astype(np.float32),
            like_line=_like_lines(learned, record)[:, among],
            dose=np.exp(-np.square(apart).sum(2) / 2).astype(np.float32),
        )


def _kernel(near: Near, name: str) -> np.ndarray:
    """Products of kernels, each beside what is shared by all doses or lines."""
    kernel = near.vector if name == "vector" else near.structure
    for factor in name.split()[1:]:
        kernel = kernel * (near.dose if factor == "dose" else near.same_line)
    return kernel + near.structure if name.endswith("dose") else kernel


class Experts:
    """Columns of samples by what was learned of others.

    Args:
        learned: See ``learn``.
        process: Fitted to the same samples.
        dosed: Whether there are columns of like doses.
        several: Whether there are columns of other lines.
    """

    def __init__(self, learned: Learned, process: GaussianProcess, dosed: bool, several: bool) -> None:
        self.learned, self.process, self.dosed, self.several = learned, process, dosed, several

    def start(self, record: Response) -> np.ndarray:
        """What columns are added to: mean treated expression of the line, float32 [n, G]."""
        return self.learned.level(record.cell_line).astype(np.float32)

    def columns(self, record: Response) -> dict[str, np.ndarray]:
        """``source: what`` -> predicted departures from ``start``, float32 [n, G]."""
        by_treatment, by_control = self.process.parts(record)
        found = self._level(record, by_control)
        near = Near.of(self.learned, record, np.arange(len(self.learned.drug)))
        found.update(self._votes(near))
        ridges = self._ridges(near)
        found.update(ridges)
        found["gaussian process: treatment"] = by_treatment
        first = next(iter(ridges))
        for name in (first, "gaussian process: treatment"):
            found[f"{name}, smoothed"] = self._smoothed(found[name])
        shape = len(record), self.learned.departure.shape[1]
        return {name: np.broadcast_to(column, shape).astype(np.float32, copy=False) for name, column in found.items()}

    def _level(self, record: Response, by_control: np.ndarray) -> dict[str, np.ndarray]:
        """How treated wells beside the sample's control look, by wells with like controls of its line."""
        learned = self.learned
        lines = record.cell_line
        found = {"line change: mean": record.control + learned.change(lines) - learned.level(lines)}
        departure = record.control - learned.controls(lines)
        apart = np.square(departure).sum(1)[:, None] + np.square(learned.control).sum(1)
        with one_thread():
            apart = np.maximum(apart - 2 * departure @ learned.control.T, 0) / departure.shape[1]
        same_line = lines[:, None] == learned.line
        for source, widths, values, row in (
            ("control", WIDTHS, learned.treated, None),
            ("control plate", PLATE_WIDTHS, learned.plate, learned.plate_row),
        ):
            for width in widths:
                bell = np.exp(-apart / (2 * max((width * learned.width) ** 2, 1e-12)))[:, learned.control_row]
                found[f"{source}: width {width:g}"] = _vote(bell * same_line, values, row)
        found["gaussian process of controls: mean"] = by_control
        return found

    def _votes(self, near: Near) -> Iterator[tuple[str, np.ndarray]]:
        """Mean departures of wells of like drugs, of the same drug, and of like doses, on the line and on others."""
        departure = self.learned.departure
        where = {"line": near.same_line}
        if self.several:
            where |= {"other lines": 1 - near.same_line, "like lines": near.like_line}
        what: dict[str, np.ndarray] = {f"like drugs^{power}": near.like**power for power in POWERS}
        what["same drug"] = near.same_drug
        if self.dosed:
            what |= {f"{name}, dose": weight * near.dose for name, weight in what.items()} | {"dose": near.dose}
        for place, among in where.items():
            for name, weight in what.items():
                source = name.split("^")[0].split(",")[0]
                yield f"{source}, {place}: {name}", _vote(weight * among, departure)
        typical = {"all wells": self.learned.steady} | ({"dose": self.learned.steady * near.dose} if self.dosed else {})
        for place, among in list(where.items())[:2]:
            for name, weight in typical.items():
                yield f"typical well, {place}: {name}", _vote(weight * among, departure)
        yield "mean: of all wells", departure.mean(0)

    def _ridges(self, near: Near) -> dict[str, np.ndarray]:
        """Kernel ridges on structures."""
        learned, found = self.learned, {}
        part = Near(**{name: values[:, learned.drawn] for name, values in vars(near).items()})
        with one_thread():
            for (kernel, penalty), dual in zip(KERNEL_RIDGES, learned.dual, strict=True):
                if kernel.endswith("dose") and not self.dosed:
                    continue
                found[f"ridge on {kernel}: penalty {penalty:g}"] = _kernel(part, kernel) @ dual
        return found

    def _smoothed(self, values: np.ndarray) -> np.ndarray:
        """What the principal components of training changes hold of a column."""
        with one_thread():
            return (values @ self.learned.direction.T) @ self.learned.direction


def _vote(weight: np.ndarray, values: np.ndarray, row: np.ndarray | None = None) -> np.ndarray:
    """Weighted mean of the rows of ``values`` [n, G], of each sample its ``row`` if given; shrunk to 0."""
    total = weight.sum(1, dtype=np.float64)[:, None] + EVIDENCE
    if row is not None:  # summed by row first: a hundred wells share a plate
        order = np.argsort(row, kind="stable")
        starts = np.searchsorted(row[order], np.arange(len(values)))
        weight = np.add.reduceat(weight[:, order], starts, axis=1)
    with one_thread():
        return (weight.astype(np.float32) @ values) / total


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows, float32, and which of them each row is."""
    rows, row = np.unique(values.astype(np.float32), axis=0, return_inverse=True)
    return rows, row.ravel()


def _condition(record: Response) -> np.ndarray:
    return np.stack([log_dose(record), log_time(record)], axis=1)


def lengths(departure: np.ndarray) -> np.ndarray:
    """Euclidean length of each row, float64 [n]."""
    return np.sqrt(np.square(departure, dtype=np.float64).sum(1))


def steadiness(length: np.ndarray, least: float) -> np.ndarray:
    """(least / length)^2, at most 1: a few toxic doses depart by far more than all others."""
    return (least / np.maximum(length, max(least, 1e-12))) ** 2


def _vectors(molecules: Molecules, rows: np.ndarray) -> np.ndarray:
    """Vectors of some drugs and, behind them, whether there is none, float32."""
    known = molecules.known[rows, None]
    return np.concatenate([np.where(known, molecules.vectors[rows], 0), ~known], axis=1).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def _like_lines(learned: Learned, record: Response) -> np.ndarray:
    """See ``Near.like_line`` [m, n]."""
    names, at = np.unique(record.cell_line, return_inverse=True)
    own = record.control if record.basal is None else record.basal
    measured = GroupMeans.of(own, record.cell_line, own.mean(0, dtype=np.float64))
    center = learned.basal.means[:-1].mean(0)
    known = np.isin(names, learned.basal.names)
    profile = np.where(known[:, None], learned.basal(names), measured(names)) - center
    others = learned.basal.means[:-1] - center
    with one_thread():
        cosine = _unit(profile) @ _unit(others).T
    like = np.square(np.maximum(cosine, 0)) * (names[:, None] != learned.basal.names)
    return like[np.ix_(at, np.searchsorted(learned.basal.names, learned.line))].astype(np.float32)


def blocks(record: Response) -> Iterator[tuple[slice, Response]]:
    """The samples in blocks of ``ROWS``."""
    for start in range(0, len(record), ROWS):
        rows = slice(start, min(start + ROWS, len(record)))
        yield rows, record.subset(np.arange(rows.start, rows.stop))
