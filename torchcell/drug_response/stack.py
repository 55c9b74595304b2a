"""``Stack``: one weighted sum of out-of-fold experts of drug response; a baseline of every table, and a prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from torchcell.core.predictor import Folds, Predictor
from torchcell.core.prior import FOLDS
from torchcell.core.profile_prior import ProfileColumns, ProfilePrior, fit_profiles
from torchcell.drug_response.baselines import require_same_outputs
from torchcell.drug_response.baselines_fitted import GaussianProcess
from torchcell.drug_response.experts import LEVEL, Experts, Learned, blocks, departed_from, learn, lengths, steadiness
from torchcell.drug_response.record import Response
from torchcell.drug_response.splits import SPLITS
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError


class _Columns(NamedTuple):
    """Of n samples: columns by name [n, G] each, their start [n, G], and the mean of the plate, NaN where unknown."""

    columns: dict[str, np.ndarray]
    start: np.ndarray
    plate: np.ndarray


class Stack(Predictor):
    """A weighted sum of the columns of ``torchcell.drug_response.experts``, with the same weights for all genes.

    The training part is split again by the method of the split; a training sample's columns come from experts that
    never saw its fold, those of other samples from experts fitted to all of train. A sample's squared error is divided
    by the square of its departure from its plate, at least the median one: what is scored is the shape of a profile,
    and a few toxic doses would else decide. Weights are fitted for plates that are not known, as ``predict`` asks;
    where a plate is known its mean stands in place of the columns of the level.

    Args:
        penalties: Of the weights, in mean squares of a column, chosen on val.
        most: Training samples that the Gaussian process and the kernel ridges hold.
        weighed: Training samples that the weights of the Gaussian process are found with, in each of five fits.
        seed: Of their draw.
    """

    name = "stack"
    genes: np.ndarray
    learned: Learned
    process: GaussianProcess
    dosed: bool
    several: bool
    prior: ProfilePrior
    inner_nG: np.ndarray

    def __init__(
        self,
        penalties: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0, 10.0),
        most: int = 4000,
        weighed: int = 500,
        seed: int = 0,
    ) -> None:
        self.penalties, self.most, self.weighed, self.seed = tuple(penalties), most, weighed, seed
        self.folds: Folds = _random_folds

    def with_folds(self, folds: Folds) -> Self:
        """See ``Predictor``; without them the samples of the training part are split at random."""
        self.folds = folds
        return self

    def fit(self, train: Response, val: Response, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes = train.genes
        self.dosed = len(np.unique(train.dose_value)) > 1 or len(np.unique(train.time)) > 1
        self.several = len(np.unique(train.cell_line)) > 1
        experts = self._experts(train)
        self.learned, self.process, self.experts = experts.learned, experts.process, experts
        size_n = lengths(train.treated - departed_from(train))
        least = float(np.median(size_n))
        parts, held = [], []
        for fitted_on, held_out in self.folds(train):
            if fitted_on.any() and held_out.any():
                parts.append(_columns(self._experts(train.subset(fitted_on)), train.subset(held_out).blind()))
                held.append(held_out)
        if not parts:
            raise InputError(
                f"{self.name}: no inner fold of {train.name} has samples both to fit on and to predict; take more "
                "samples, or leave it out (baselines.stack=null)"
            )
        names = list(parts[0].columns)
        folds = [_problem(part, train.treated[at], size_n[at], least) for part, at in zip(parts, held, strict=True)]
        of_val = _columns(experts, val.blind())
        center = np.where(np.isnan(of_val.plate), of_val.start, of_val.plate)
        chosen_by = _problem(of_val, val.treated, lengths(val.treated - center), least)
        self.prior, without = fit_profiles(names, folds, chosen_by, self.penalties)
        self.inner_nG = np.full(train.treated.shape, np.nan, dtype=np.float32)
        for part, at, prior in zip(parts, held, without, strict=True):
            self.inner_nG[at] = _prediction(prior, part)
        return self

    def _experts(self, train: Response) -> Experts:
        train = train.subset(np.argsort(train.sample_id))  # the order of a file must not matter to what is drawn
        drawn = np.sort(np.random.default_rng(self.seed).permutation(len(train))[: self.most])
        process = GaussianProcess(self.most, self.seed, self.weighed).fit(train, train, None)
        return Experts(learn(train, drawn), process, self.dosed, self.several)

    def out_of_fold(self) -> np.ndarray:
        """See ``Predictor``; with the plates known, as a network knows them in training."""
        return self.inner_nG

    def contributions(self) -> list[dict[str, float]]:
        """See ``Predictor``; one for all genes."""
        return [self.prior.contributions()]

    def load_state_dict(self, state: Mapping[str, Any], graph: CellGraph | None = None) -> Self:
        """See ``Predictor``."""
        super().load_state_dict(state)
        self.experts = Experts(self.learned, self.process, self.dosed, self.several)
        return self

    def predict(self, record: Response) -> np.ndarray:
        """See ``Predictor``."""
        require_same_outputs(record, self.genes)
        found = np.empty(record.control.shape, dtype=np.float32)
        for rows, block in blocks(record):
            found[rows] = _prediction(self.prior, _columns(self.experts, block))
        return found


def _columns(experts: Experts, record: Response) -> _Columns:
    """Columns of all samples, made in blocks."""
    start, plate = experts.start(record), experts.learned.plates(record).astype(np.float32)
    columns: dict[str, np.ndarray] = {}
    for rows, block in blocks(record):
        for name, column in experts.columns(block).items():
            columns.setdefault(name, np.empty(start.shape, dtype=np.float32))[rows] = column
    return _Columns(columns, start, plate)


def _problem(part: _Columns, treated: np.ndarray, size_n: np.ndarray, least: float) -> ProfileColumns:
    """What the weights are fitted to: the plates are not known."""
    columns = np.stack(list(part.columns.values())) if len(treated) else np.empty((0, *treated.shape))
    return ProfileColumns(columns, treated - part.start, steadiness(size_n, least))


def _prediction(prior: ProfilePrior, part: _Columns) -> np.ndarray:
    columns = np.stack([part.columns[name] for name in prior.names])
    treatment = [source for source in prior.sources if source not in LEVEL]
    level = np.where(np.isnan(part.plate), part.start + prior.predict(columns, LEVEL), part.plate)
    return (level + prior.predict(columns, treatment)).astype(np.float32)


def _random_folds(train: Response) -> Any:
    for fold in range(FOLDS):
        part = SPLITS.make(train, "random", FOLDS, fold, seed=1).part
        yield part != "test", part == "test"
