"""``Stack``: a linear prior on the columns of many closed-form experts, each fitted out of fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from torchcell.core.linear_prior import LinearPrior, fit_linear
from torchcell.core.predictor import Folds, Predictor
from torchcell.core.prior import FOLDS, InnerPart
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.baselines import MOST_SAMPLES, measured
from torchcell.screen.baselines_fitted import Items
from torchcell.screen.experts import Experts, Learned, Likeness, Sources, fit_experts, refuse_leaks
from torchcell.screen.record import Screen
from torchcell.screen.splits import SPLITS

AT_ONCE = 2**18
"""Samples whose columns are in memory at once in ``predict``."""


class _Fitted(NamedTuple):
    """One phenotype: experts of the whole training part, and the weights of their columns."""

    learned: Learned
    prior: LinearPrior


class Stack(Predictor):
    """Ridge (logistic regression for a binary task) on the columns of ``torchcell.screen.experts``.

    The training part is split again by the method of the split; a training sample's columns come from experts that
    never saw its fold, those of other samples from experts fitted to all of train. So a column weighs what it is worth
    for samples like the held-out ones. Sets of any size; a gene that no source names has the means of the others.

    Args:
        k: Nearest genes with training values that a gene borrows from.
        power: Of their cosine, which weighs them.
        rank: Width of the signed least-squares factors.
        factor_penalty: Ridge penalty of the factors, for values of root mean square 1.
        n_iter: Sweeps over the factors.
        shrinkage: Pseudo-evidence of a vote, over the mean evidence of all pairs of genes, measured or not.
        penalties: Of the linear part, in samples, chosen on val.
        trusted: Relations whose weights may correlate with the training values.
    """

    name = "stack"
    most_samples = MOST_SAMPLES
    items: Items
    inner_nT: np.ndarray
    fitted: list[_Fitted | None]

    def __init__(
        self,
        k: int = 50,
        power: float = 1.5,
        rank: int = 256,
        factor_penalty: float = 4.0,
        n_iter: int = 4,
        shrinkage: float = 3.0,
        penalties: Sequence[float] = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0),
        trusted: Sequence[str] = (),
    ) -> None:
        self.how = Likeness(k, power, rank, factor_penalty, n_iter, shrinkage)
        self.penalties, self.trusted = tuple(penalties), tuple(trusted)
        self.folds: Folds = _random_folds

    def with_folds(self, folds: Folds) -> Self:
        """See ``Predictor``; without them the samples of the training part are split at random."""
        self.folds = folds
        return self

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        refuse_leaks(train, graph, self.trusted)
        self.items, self.binary = Items.of(train), train.task == "binary"
        self.large = bool((train.sizes > 2).any())
        self.sources = Sources.of(graph, train.genes, self.how.k)
        self.inner_nT = np.full(train.phenotype.shape, np.nan, dtype=np.float32)
        self.fitted, self.experts = [], []
        folds = list(self.folds(train))
        for t in range(train.phenotype.shape[1]):
            fitted, experts = self._fit_one(train, val, folds, t)
            self.fitted.append(fitted)
            self.experts.append(experts)
        return self

    def _fit_one(
        self, train: Screen, val: Screen, folds: list[tuple[np.ndarray, np.ndarray]], t: int
    ) -> tuple[_Fitted | None, Experts | None]:
        known = measured(train, t)
        if not known.any():
            return None, None
        experts = self._experts(train, val, t)
        columns, fold_n = self._out_of_fold(train, val, folds, t)
        rows = known & (fold_n >= 0)
        held = experts.columns(val), val.phenotype[:, t]
        prior, inner = fit_linear(
            experts.column_names,
            columns[rows],
            train.phenotype[rows, t],
            fold_n[rows],
            held,
            self.penalties,
            self.binary,
        )
        self.inner_nT[rows, t] = inner
        return _Fitted(experts.learned, prior), experts

    def _experts(self, train: Screen, val: Screen, t: int) -> Experts:
        return fit_experts(train, val, t, self.sources, self.how, self.items, self.large)

    def _out_of_fold(
        self, train: Screen, val: Screen, folds: list[tuple[np.ndarray, np.ndarray]], t: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Columns of each training sample [n, F] by experts that never saw its fold, and which fold; -1 for none."""
        known, fold_n = measured(train, t), np.full(len(train), -1)
        columns = np.zeros((len(train), 0), dtype=np.float32)
        for number, (fitted_on, held_out) in enumerate(folds):
            if (fitted_on & known).any() and (held_out & known).any():
                made = self._experts(train.subset(fitted_on), val, t).columns(train.subset(held_out).blind())
                if not columns.shape[1]:
                    columns = np.zeros((len(train), made.shape[1]), dtype=np.float32)
                columns[held_out], fold_n[held_out] = made, number
        if (fold_n < 0).all():
            raise InputError(
                f"{self.name}: no inner fold of {train.name} has values of {train.phenotype_names[t]} both to fit on "
                "and to predict; take more samples, or leave it out (baselines.stack=null)"
            )
        return columns, fold_n

    def out_of_fold(self) -> np.ndarray:
        """See ``Predictor``."""
        return self.inner_nT

    def columns(self, record: Screen) -> np.ndarray:
        """See ``Predictor``; those of each phenotype side by side."""
        made = [
            one.prior.standardized(experts.columns(record))
            for one, experts in zip(self.fitted, self.experts, strict=True)
            if one is not None and experts is not None
        ]
        return np.concatenate(made, axis=1)

    def columns_out_of_fold(
        self, parts: Sequence[InnerPart], val: Screen, graph: CellGraph | None
    ) -> Iterator[np.ndarray]:
        """See ``Predictor``."""
        self.large = any(bool((record.sizes > 2).any()) for part in parts for record in part[:2])
        for part in parts:
            made = []
            for t, one in enumerate(self.fitted):
                if one is None:
                    continue
                columns = np.full((len(part.held_out), len(one.prior.names)), np.nan, dtype=np.float32)
                if measured(part.train, t).any() and measured(part.held_out, t).any():
                    columns = self._experts(part.train, val, t).columns(part.held_out.blind())
                    columns = one.prior.standardized(columns)
                made.append(columns)
            yield np.concatenate(made, axis=1)

    def contributions(self) -> list[dict[str, float]]:
        """See ``Predictor``; those of a binary task are on the logistic scale."""
        priors = [None if one is None else one.prior for one in self.fitted]
        return [
            {} if prior is None else dict(zip(prior.sources, prior.spread_S.tolist(), strict=True)) for prior in priors
        ]

    def load_state_dict(self, state: Mapping[str, Any], graph: CellGraph | None = None) -> Self:
        """See ``Predictor``."""
        super().load_state_dict(state)
        self.sources = Sources.of(graph, self.items.genes, self.how.k)
        self.experts = [None if one is None else Experts(one.learned, self.sources, self.how) for one in self.fitted]
        return self

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``; NaN for a phenotype without a training value."""
        if len(record) > AT_ONCE:
            parts = np.split(np.arange(len(record)), np.arange(AT_ONCE, len(record), AT_ONCE))
            return np.concatenate([self.predict(record.subset(part)) for part in parts])
        prediction = np.full((len(record), len(self.fitted)), np.nan, dtype=np.float32)
        for t, (fitted, experts) in enumerate(zip(self.fitted, self.experts, strict=True)):
            if fitted is not None and experts is not None:
                prediction[:, t] = fitted.prior.predict(experts.columns(record))
        return prediction


def _random_folds(train: Screen) -> Any:
    for fold in range(FOLDS):
        part = SPLITS.make(train, "random", FOLDS, fold, seed=1).part
        yield part != "test", part == "test"
