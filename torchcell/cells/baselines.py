"""What a model of single cells must beat: mean changes, additive effects, ridge, the split-half ceiling."""

from __future__ import annotations

import zlib
from typing import Self

import numpy as np
import scipy.linalg

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.core.predictor import GroupMeans, Predictor, one_thread
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.io.matrices import dense


def require_same_genes(record: Pseudobulk, genes: np.ndarray) -> None:
    """Refuse a record over another gene list than the one fitted on: columns would mean other genes."""
    if not np.array_equal(record.genes, genes):
        raise InputError(
            f"{record.name} has another gene list than the baseline was fitted on; take train and test from one record"
        )


def change(record: Pseudobulk) -> np.ndarray:
    """Mean of the condition's cells minus that of the controls that predictions start from, float64 [n, G].

    Never minus the truth's half of the controls: what is learned would share its noise with what it is scored against,
    and fake perturbations drawn from the controls would look like a success.
    """
    return record.target.astype(np.float64) - record.input_control


def balanced_mean(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Mean over the names of the mean of each name's rows, float64 [G]: what is measured often counts once."""
    return GroupMeans.of(values, names, np.zeros(values.shape[1])).means[:-1].mean(0)


def mean_change(train: Pseudobulk) -> GroupMeans:
    """Mean change of the training perturbations of each group; of a group without any the mean over the groups."""
    change_nG = change(train)
    return GroupMeans.of(change_nG, train.group, balanced_mean(change_nG, train.group))


def training_center(train: Pseudobulk, asked: Pseudobulk) -> np.ndarray:
    """The controls plus the mean change of the training perturbations, float32 [m, G].

    Within a group that was trained on this is the mean of its training perturbations, without any noise of the
    controls: what ``pearson_delta_perturbed`` is taken against.
    """
    return (asked.input_control + mean_change(train)(asked.group)).astype(np.float32)


class Additive(Predictor):
    """The group's controls plus, for each perturbed gene, the change that its single perturbation had in train.

    A single of the same group is taken before the mean over the other groups. A gene without a single in train adds the
    mean change of the training singles. NaN where no gene has one. (Ahlmann-Eltze, Huber and Anders 2025.)
    """

    name = "additive"
    genes: np.ndarray
    change: dict[str, GroupMeans]
    mean_single: GroupMeans | None

    def fit(self, train: Pseudobulk, val: Pseudobulk, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        size = np.array([len(targets) for targets in train.targets])
        singles = train.subset(size == 1)
        self.genes, self.change, self.mean_single = train.genes, {}, None
        if not len(singles):
            return self
        change_nG, gene = change(singles), singles.perturbation
        self.mean_single = mean_change(singles)
        for name in sorted(set(gene.tolist())):
            at = np.flatnonzero(gene == name)
            own = change_nG[at], singles.group[at]
            self.change[name] = GroupMeans.of(*own, balanced_mean(*own))
        return self

    def predict(self, record: Pseudobulk) -> np.ndarray:
        """See ``Predictor``."""
        require_same_genes(record, self.genes)
        found = np.full((len(record), len(record.genes)), np.nan)
        if self.mean_single is None:
            return found.astype(np.float32)
        otherwise = self.mean_single(record.group)
        for i, targets in enumerate(record.targets):
            known = [self.change.get(gene) for gene in targets]
            if any(known):
                found[i] = sum(otherwise[i] if one is None else one(record.group[i : i + 1])[0] for one in known)
        return (record.input_control + found).astype(np.float32)


def split_half_ceiling(record: Pseudobulk, seed: int = 0) -> np.ndarray:
    r"""A stand-in for the noiseless mean of each condition, to be scored against the mean of all its cells.

    Half of the cells against all of them shares noise, half against half has too much of it. The difference of the
    halves' means, e = (a - b) sqrt(n_a n_b) / (n_a + n_b), has the noise of the mean y of all cells and does not
    correlate with it. With x = y - m, m the mean of both halves of the controls, s the part of x along the mean of the
    other conditions' x and a constant over genes, N the noise of y (variance between cells over their number, mean over
    genes) and r = 1 - N / var(x - s) over genes,

        p = m + s + r (x - s) + sqrt(r) e.

    p has over genes the variance of the noiseless mean and its covariance with y, with each half of the controls and
    with what perturbations share: ``mse`` is N, and the correlations of changes are those of the noiseless mean. What
    looks beyond second moments over all genes (``mae``, ``mse_top20``, ``des``, ranks) agrees as far as genes are
    alike.

    Args:
        record: The evaluated part, with its cells.
        seed: Of the halves, with the condition's name.

    Returns:
        float32 [n, G]; NaN for a condition of one cell.
    """
    middle_nG = (record.eval_control.astype(np.float64) + record.input_control) / 2
    x_nG = record.target.astype(np.float64) - middle_nG
    found = np.full(x_nG.shape, np.nan, dtype=np.float32)
    for i in np.flatnonzero(record.sizes > 1).tolist():
        cells_mG = dense(record.cells.X[record.members(i)]).astype(np.float64)
        one, two = _halves(record, i, seed)
        scale = np.sqrt(len(one) * len(two)) / len(cells_mG)
        error = scale * (cells_mG[one].mean(0) - cells_mG[two].mean(0))
        noise = cells_mG.var(0, ddof=1).mean() / len(cells_mG)
        span = _span(np.delete(x_nG, i, axis=0))
        shared, error = span @ (span.T @ x_nG[i]), error - span @ (span.T @ error)
        rest = x_nG[i] - shared
        varies = (rest**2).sum() / max(len(rest) - span.shape[1], 1)
        r = float(np.clip(1 - noise / varies, 0, 1)) if varies > 0 else 0.0
        found[i] = middle_nG[i] + shared + r * rest + np.sqrt(r) * error
    return found


def half_means(record: Pseudobulk, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean expression of either half of each condition's cells, two of [n, G]; NaN for a condition of one cell."""
    found = np.full((2, len(record), len(record.genes)), np.nan)
    for i in np.flatnonzero(record.sizes > 1).tolist():
        cells_mG = dense(record.cells.X[record.members(i)]).astype(np.float64)
        for half, at in enumerate(_halves(record, i, seed)):
            found[half, i] = cells_mG[at].mean(0)
    return found[0], found[1]


def _halves(record: Pseudobulk, condition: int, seed: int) -> list[np.ndarray]:
    """A condition's cells in two halves, by its name."""
    rng = np.random.default_rng([seed, zlib.crc32(str(record.sample_id[condition]).encode())])
    return np.array_split(rng.permutation(int(record.sizes[condition])), 2)


def _span(others_nG: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span a constant and the mean of the rows [G, 1 or 2]."""
    constant = np.full((others_nG.shape[1], 1), 1 / np.sqrt(others_nG.shape[1]))
    mean = others_nG.mean(0) if len(others_nG) else np.zeros(others_nG.shape[1])
    rest = mean - mean.mean()
    length = np.linalg.norm(rest)
    return np.column_stack([constant, rest / length]) if length > 1e-9 else constant


class FakePerturbation(Predictor):
    """The mean of cells drawn, with replacement, from the other half of the group's controls.

    As many cells as the middle training condition has. A score within this row's interval is no skill; if the row
    itself shows skill, truth and prediction share noise. Where that half is one cell there is nothing to draw, and it
    has nothing to say (NaN): all draws would be the row ``no_change`` under another name.

    Args:
        seed: Of the draw, with the condition's name.
    """

    name = "fake_perturbation"
    genes: np.ndarray
    n_cells: int

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: Pseudobulk, val: Pseudobulk, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes, self.n_cells = train.genes, int(np.median(train.sizes))
        return self

    def predict(self, record: Pseudobulk) -> np.ndarray:
        """See ``Predictor``."""
        require_same_genes(record, self.genes)
        drawn = [self._draw(record, i) for i in range(len(record))]
        ptr = np.cumsum([0, *(len(cells) for cells in drawn)], dtype=np.int64)
        return record.mean(ptr, np.concatenate(drawn))

    def _draw(self, record: Pseudobulk, condition: int) -> np.ndarray:
        """Positions of the drawn cells, none of a single one; they depend on the condition's name, not on its place."""
        name = str(record.sample_id[condition])
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        # Names order the cells: a blind record holds them at other positions.
        cells = record.input_cells(condition)
        cells = cells[np.argsort(record.cells.sample_id[cells], kind="stable")]
        if len(cells) < 2:
            return np.empty(0, dtype=np.int64)
        return rng.choice(cells, self.n_cells).astype(np.int64)


class NoChange(Predictor):
    """The mean of the other half of the group's controls: a perturbation does nothing."""

    name = "no_change"

    def fit(self, train: Pseudobulk, val: Pseudobulk, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        return self

    def predict(self, record: Pseudobulk) -> np.ndarray:
        """See ``Predictor``."""
        return record.input_control.astype(np.float32)


class PerturbedMean(Predictor):
    """The group's controls plus the mean change of its training perturbations, see ``training_center``."""

    name = "perturbed_mean"
    genes: np.ndarray
    change: GroupMeans

    def fit(self, train: Pseudobulk, val: Pseudobulk, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes, self.change = train.genes, mean_change(train)
        return self

    def predict(self, record: Pseudobulk) -> np.ndarray:
        """See ``Predictor``."""
        require_same_genes(record, self.genes)
        return (record.input_control + self.change(record.group)).astype(np.float32)


class SamePerturbation(Predictor):
    """The group's controls plus the mean change that the same perturbation had in other groups, e.g. cell lines.

    NaN for a perturbation that was not trained on.
    """

    name = "same_perturbation"
    genes: np.ndarray
    change: dict[str, np.ndarray]

    def fit(self, train: Pseudobulk, val: Pseudobulk, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        change_nG, self.genes = change(train), train.genes
        labels = train.perturbation.tolist()
        self.change = {
            label: balanced_mean(change_nG[at], train.group[at])
            for label in sorted(set(labels))
            for at in [train.perturbation == label]
        }
        return self

    def predict(self, record: Pseudobulk) -> np.ndarray:
        """See ``Predictor``."""
        require_same_genes(record, self.genes)
        nothing = np.full(len(self.genes), np.nan)
        added = [self.change.get(label, nothing) for label in record.perturbation.tolist()]
        return (record.input_control + np.stack(added)).astype(np.float32)


class PcaRidge(Predictor):
    r"""Controls plus b + Z W p, the change as a bilinear map between gene and perturbation vectors.

    Z [G, K] are the scores of the genes on K principal components of the training expression (genes as rows; mean of
    each condition and of each group's controls as columns), p the rows of Z of the perturbed genes, added up, and b the
    mean change. W minimizes ||Y - b - Z W P^T||^2 by ridge on both sides,
    W = (Z^T Z + \lambda)^{-1} Z^T (Y - b) P (P^T P + \lambda)^{-1}, Y [G, n] the training changes. A condition of which
    no perturbed gene is measured gets b. (Ahlmann-Eltze, Huber and Anders 2025, the linear model.)

    Args:
        k: Principal components.
        penalty: lambda.
    """

    name = "pca_ridge"
    genes: np.ndarray
    change: GroupMeans
    score_GK: np.ndarray
    weight_KK: np.ndarray

    def __init__(self, k: int = 10, penalty: float | int = 0.1) -> None:
        self.k, self.penalty = k, float(penalty)

    def fit(self, train: Pseudobulk, val: Pseudobulk, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.genes = train.genes
        first = np.unique(train.group, return_index=True)[1]
        level_mG = np.concatenate([train.target, train.input_control[first]]).astype(np.float64)
        change_nG = change(train)
        self.change = mean_change(train)
        centered_nG = change_nG - self.offset(train)
        with one_thread():
            table_Gm = (level_mG - level_mG.mean(1, keepdims=True)).T
            left, value, _ = scipy.linalg.svd(table_Gm, full_matrices=False)
            self.score_GK = (left * value)[:, : self.k]
            vector_nK = self.vectors(train)
            ridge = self.penalty * np.eye(self.score_GK.shape[1])
            own = scipy.linalg.solve(self.score_GK.T @ self.score_GK + ridge, self.score_GK.T @ centered_nG.T)
            self.weight_KK = scipy.linalg.solve(vector_nK.T @ vector_nK + ridge, (own @ vector_nK).T).T
        return self

    def predict(self, record: Pseudobulk) -> np.ndarray:
        """See ``Predictor``."""
        require_same_genes(record, self.genes)
        with one_thread():
            found = self.offset(record) + self.vectors(record) @ self.weight_KK.T @ self.score_GK.T
        return (record.input_control + found).astype(np.float32)

    def offset(self, record: Pseudobulk) -> np.ndarray:
        """b of each condition's group [n, G]: the mean change in train, over all groups for an unseen one."""
        return self.change(record.group)

    def vectors(self, record: Pseudobulk) -> np.ndarray:
        """p of each condition [n, K]; zeros where no perturbed gene is measured."""
        found = np.zeros((len(record), self.score_GK.shape[1]))
        place = {gene: i for i, gene in enumerate(self.genes.tolist())}
        for i, targets in enumerate(record.targets):
            at = [place[gene] for gene in targets if gene in place]
            found[i] = self.score_GK[at].sum(0)
        return found
