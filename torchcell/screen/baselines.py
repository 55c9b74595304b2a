"""What a model of screens must beat: means, additive effects, and the replicate ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from torchcell.core.predictor import Predictor, one_thread, validation_score
from torchcell.graph.cell_graph import CellGraph
from torchcell.screen.record import KINDS, Screen

MOST_SAMPLES = 500_000
"""Training samples of what is fitted by steps or trees, or again for each inner fold; more than any benchmark has."""


def incidence(record: Screen) -> sp.csr_matrix:
    """One-hot table of what was perturbed and how, [n, n_genes * n_kinds]; levels are not used."""
    column = record.gene * len(KINDS) + record.kind
    shape = (len(record), len(record.genes) * len(KINDS))
    return sp.csr_matrix((np.ones(len(column)), column, record.ptr), shape=shape)


def over_genes(record: Screen, genes: np.ndarray) -> Screen:
    """The same samples, their members numbered by ``genes``; what it lacks is numbered after it."""
    if np.array_equal(record.genes, genes):
        return record
    place = {name: i for i, name in enumerate(genes.tolist())}
    new = [name for name in record.genes.tolist() if name not in place]
    place |= {name: len(genes) + i for i, name in enumerate(new)}
    number = np.array([place[name] for name in record.genes.tolist()], dtype=np.int64)
    return replace(record, genes=np.concatenate([genes, np.array(new, dtype=str)]), gene=number[record.gene])


def of_unknown_genes(record: Screen, n_genes: int) -> np.ndarray:
    """The samples with a member beyond the first ``n_genes`` genes, as a mask [n]."""
    found = np.zeros(len(record), dtype=bool)
    found[record.owner[record.gene >= n_genes]] = True
    return found


def measured(record: Screen, output: int) -> np.ndarray:
    """The samples that have a value of phenotype ``output``, as a mask [n]."""
    return ~np.isnan(record.phenotype[:, output])


class _Additive(NamedTuple):
    """One phenotype: the weight of each (gene, kind) and the intercept."""

    weight: np.ndarray
    intercept: float


class AdditiveRidge(Predictor):
    """y = b + sum over the set of w[gene, kind], with a ridge penalty alpha on w.

    Sets of any size and kind. A gene unseen in train adds nothing.

    Args:
        alphas: Penalties to choose from, in samples (phenotype-scale free).
    """

    name = "additive_ridge"
    genes: np.ndarray
    models: list[_Additive | None]

    def __init__(self, alphas: Sequence[float] = (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0)) -> None:
        self.alphas = tuple(alphas)

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes = train.genes
        x_train, x_val = incidence(train), incidence(val)
        self.models = []
        for t in range(train.phenotype.shape[1]):
            has_value = measured(train, t)
            best, best_score = None, -np.inf
            for alpha in self.alphas:
                if not has_value.any():
                    break
                # sparse_cg solves on the sparse table itself; 1e-8 is far below the noise of any screen.
                model = Ridge(alpha=alpha, solver="sparse_cg", tol=1e-8)
                with one_thread():
                    model.fit(x_train[has_value], train.phenotype[has_value, t].astype(np.float64))
                score = validation_score(val.phenotype[:, t], model.predict(x_val), train.task)
                if best is None or score > best_score:
                    best, best_score = model, score
            self.models.append(None if best is None else _Additive(best.coef_, float(best.intercept_)))
        return self

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``."""
        x = incidence(over_genes(record, self.genes))[:, : len(self.genes) * len(KINDS)]
        nothing = np.full(len(record), np.nan)
        columns = [nothing if model is None else x @ model.weight + model.intercept for model in self.models]
        return np.stack(columns, axis=1).astype(np.float32)


def replicate_ceiling(record: Screen) -> np.ndarray | None:
    """A stand-in for the noiseless phenotype, to be scored against the mean of all replicates.

    Half against half tells of the noise of half the replicates, and half against all shares its noise with
    what it is scored on: pure noise reaches a Pearson of .7. So the difference d of the halves is used, which
    does not correlate with the mean y of all. With r the share of var(y) that is not noise (from the variance
    within samples; for two equal halves the Spearman-Brown reliability), and c the mean of y,

        p = c + r (y - c) + sqrt(r) e,    e = d sqrt(n_a n_b) / (n_a + n_b).

    p has the variance r var(y) and the covariance r var(y) with y: both moments of the noiseless phenotype. Its
    Pearson is therefore sqrt(r), its r2 is r and its mse the noise of the mean, the best any model can expect;
    metrics beyond second moments (Spearman, AUROC) agree as far as values are normal. Replicates are dealt to the
    halves alternately. Nothing is fitted on train: the ceiling describes the part that is scored.

    Args:
        record: The evaluated part, with its phenotype and ``replicates`` [n, R, T]; NaN is a missing replicate.

    Returns:
        float32 [n, T]; NaN for samples with fewer than two replicates; None for a record without replicates.
    """
    if record.replicates is None:
        return None
    t = record.replicates.shape[2]
    return np.stack([_ceiling(record.replicates[:, :, k].astype(np.float64)) for k in range(t)], 1)


def half_means(replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of every other replicate [n, R, T] -> two [n, T]; NaN where a half has none."""
    has_value = ~np.isnan(replicates)
    first = has_value & (np.cumsum(has_value, axis=1) % 2 == 1)
    return _mean_of(replicates, first), _mean_of(replicates, has_value & ~first)


def _mean_of(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    count = chosen.sum(1)
    total = np.where(chosen, values, 0).sum(1, dtype=np.float64)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _ceiling(value: np.ndarray) -> np.ndarray:
    """The stand-in for one phenotype with replicates ``value`` [n, R]; float32 [n]."""
    stand_in = np.full(len(value), np.nan, dtype=np.float32)
    has_value = ~np.isnan(value)
    enough = has_value.sum(1) >= 2
    if enough.sum() < 2:
        return stand_in
    value, has_value = value[enough], has_value[enough]
    count = has_value.sum(1)
    mean = np.where(has_value, value, 0).sum(1) / count
    within = np.where(has_value, value - mean[:, None], 0) ** 2
    noise = within.sum() / (count - 1).sum()  # variance of a single replicate, pooled
    total = mean.var()
    reliability = float(np.clip(1 - noise * np.mean(1 / count) / total, 0, 1)) if total > 0 else 0.0
    first = has_value & (np.cumsum(has_value, axis=1) % 2 == 1)
    n_a, n_b = first.sum(1), (has_value & ~first).sum(1)
    a, b = np.where(first, value, 0).sum(1) / n_a, np.where(has_value & ~first, value, 0).sum(1) / n_b
    error = (a - b) * np.sqrt(n_a * n_b) / count
    stand_in[enough] = mean.mean() + reliability * (mean - mean.mean()) + np.sqrt(reliability) * error
    return stand_in


class Mean(Predictor):
    """The training mean of each phenotype, for every set."""

    name = "mean"
    mean_T: np.ndarray

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        has_value = ~np.isnan(train.phenotype)
        total = np.where(has_value, train.phenotype, 0.0).sum(0, dtype=np.float64)
        self.mean_T = np.where(has_value.any(0), total / np.maximum(has_value.sum(0), 1), np.nan)
        return self

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``."""
        return np.tile(self.mean_T.astype(np.float32), (len(record), 1))


class QueryPairMean(Predictor):
    """(sum of the query pair's training values + m * overall mean) / (their number + m).

    Only for sets of three and more genes two of which are the query pair. In a pair screen there is no
    such pair: a row that names two query genes was measured in both orientations. Its prediction is NaN,
    as it is where the column ``query`` is missing. A pair unseen in train gets the overall mean.

    Args:
        pseudo_counts: Values of m to choose from, in samples.
    """

    name = "query_pair_mean"
    tables: list[dict[str, float]]
    means: list[float]

    def __init__(self, pseudo_counts: Sequence[float] = (0.1, 1.0, 3.0, 10.0)) -> None:
        self.pseudo_counts = tuple(pseudo_counts)

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        keys = np.array(query_pairs(train))
        self.tables, self.means = [], []
        for t in range(train.phenotype.shape[1]):
            has_value = measured(train, t) & (keys != "")
            table: dict[str, float] = {}
            mean = np.nan
            if has_value.any():
                values = train.phenotype[has_value, t].astype(np.float64)
                names, position, count = np.unique(keys[has_value], return_inverse=True, return_counts=True)
                mean = float(values.mean())
                total = np.bincount(position, weights=values)
                tables = [
                    dict(zip(names.tolist(), ((total + m * mean) / (count + m)).tolist(), strict=True))
                    for m in self.pseudo_counts
                ]
                scores = [
                    validation_score(val.phenotype[:, t], _look_up(query_pairs(val), one, mean), train.task)
                    for one in tables
                ]
                table = tables[int(np.argmax(scores))]
            self.tables.append(table)
            self.means.append(mean)
        return self

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``."""
        keys = query_pairs(record)
        columns = [_look_up(keys, *fitted) for fitted in zip(self.tables, self.means, strict=True)]
        return np.stack(columns, axis=1).astype(np.float32)


def query_pairs(record: Screen) -> list[str]:
    """Sorted names of the two query genes of each sample joined by ``|``; empty where there is no such pair."""
    if "query" not in record.columns:
        return [""] * len(record)
    queries = [sorted(cell.split("|")) for cell in record.columns["query"].astype(str).tolist()]
    large = (record.sizes > 2).tolist()
    return ["|".join(pair) if len(pair) == 2 and many else "" for pair, many in zip(queries, large, strict=True)]


def _look_up(keys: list[str], table: dict[str, float], mean: float) -> np.ndarray:
    return np.array([table.get(key, mean) if key else np.nan for key in keys])
