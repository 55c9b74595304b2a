"""Metrics of single cells: genes, ranks among conditions, distances of cells, and the export for cell-eval."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.spatial.distance import cdist

from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.evaluation.metrics import ProfileContext, Profiles, change_from_center
from torchcell.evaluation.registry import (
    MAE_OVER_GENES,
    MSE_OVER_GENES,
    PEARSON_DELTA,
    SKILL,
    Metric,
    MetricSet,
    profile_correlation,
    register,
)
from torchcell.io.cache import atomic_write
from torchcell.io.errors import InputError, some
from torchcell.io.matrices import dense

if TYPE_CHECKING:
    import anndata


PERTURBATION, GROUP, CONTROL = "target_gene", "celltype", "non-targeting"
"""Columns of ``obs`` and the label of a control, as ``cell-eval run`` looks for them by itself."""


def cell_eval_pair(record: Pseudobulk, prediction: np.ndarray) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Measured and predicted cells with the same labels and genes.

    The measured file has the cells of every condition and the truth's half of the controls; the predicted one the other
    half. ``cell-eval`` pairs all cells of a file with all of its controls, so that a record of several groups needs its
    option ``--celltype-col celltype``.

    Args:
        record: n conditions with their cells.
        prediction: Mean expression [n, G], or sets of S cells [n, S, G]. A mean becomes one cell: enough for ``mae``
            and the discrimination scores; a test between cells, as in ``overlap_at_N``, needs sets. Below 0 there is no
            expression: such values become 0.

    Raises:
        InputError: Predictions of another shape, or conditions without one.
    """
    sets = prediction[:, None] if prediction.ndim == 2 else prediction
    if sets.ndim != 3 or (len(sets), sets.shape[2]) != (len(record), len(record.genes)):
        raise InputError(
            f"{record.name}: predictions of shape {prediction.shape}, expected "
            f"({len(record)}, {len(record.genes)}) or sets ({len(record)}, cells, {len(record.genes)})"
        )
    if (lacking := ~np.isfinite(sets).all((1, 2))).any():
        raise InputError(f"{record.name}: conditions without a prediction: {some(record.sample_id[lacking])}")
    real, predicted = (_controls(record, half) for half in (True, False))
    real.append((record.cells.X[record.member], np.repeat(np.arange(len(record)), record.sizes), False))
    asked = np.repeat(np.arange(len(record)), sets.shape[1])
    predicted.append((np.maximum(sets, 0).reshape(-1, sets.shape[2]), asked, False))
    return _table(record, real), _table(record, predicted)


def write_cell_eval(folder: Path, record: Pseudobulk, prediction: np.ndarray) -> list[Path]:
    """Write ``cell_eval_real.h5ad`` and ``cell_eval_predicted.h5ad`` into ``folder``, see ``cell_eval_pair``.

    Score them with ``cell-eval run -ap cell_eval_predicted.h5ad -ar cell_eval_real.h5ad --profile vcc``.
    """
    paths = [folder / f"cell_eval_{what}.h5ad" for what in ("real", "predicted")]
    for path, table in zip(paths, cell_eval_pair(record, prediction), strict=True):
        with atomic_write(path) as temporary:
            table.write_h5ad(temporary)
    return paths


def _controls(record: Pseudobulk, half: bool) -> list[tuple[object, np.ndarray, bool]]:
    """Expression of one half of each group's controls, a condition that they belong to, and that they are controls."""
    first = np.unique(record.group, return_index=True)[1]
    cells = [record.eval_cells(i) if half else record.input_cells(i) for i in first.tolist()]
    return [(record.cells.X[at], np.full(len(at), i), True) for i, at in zip(first.tolist(), cells, strict=True)]


def _table(record: Pseudobulk, parts: list[tuple[object, np.ndarray, bool]]) -> anndata.AnnData:
    import anndata

    condition = np.concatenate([at for _, at, _ in parts])
    is_control = np.concatenate([np.full(len(at), flag) for _, at, flag in parts])
    columns = {
        PERTURBATION: np.where(is_control, CONTROL, record.perturbation[condition].astype(str)),
        GROUP: record.group[condition].astype(str),
    }
    obs = pd.DataFrame(columns, index=np.arange(len(condition)).astype(str))
    X = sparse.vstack([sparse.csr_matrix(values, dtype=np.float32) for values, _, _ in parts], format="csr")
    return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=record.genes.astype(str)))


@dataclass(frozen=True, eq=False)
class CellsContext(ProfileContext):
    """What changes of perturbed cells are taken against, and what else is known of a condition.

    Attributes:
        significant: Genes that truly changed, bool [n, G]; or none.
        own: Columns of the condition's perturbed genes, -1 pads [n] or [n, K]; or none.
        rank_within: Conditions are told apart from those of the same name only, e.g. of their cell line [n]; none:
            from all.
        cells: Cells of each condition, and the control cells that a prediction moves; or none.
    """

    significant: np.ndarray | None = None
    own: np.ndarray | None = None
    rank_within: np.ndarray | None = None
    cells: CellPairs | None = None

    def shapes(self, n: int, n_genes: int) -> dict[str, tuple[int, ...]]:
        """See ``ProfileContext``."""
        columns = () if self.own is None else self.own.shape[1:2]
        own = {"significant": (n, n_genes), "own": (n, *columns), "rank_within": (n,)}
        return super().shapes(n, n_genes) | own

    def problems(self, n: int, n_genes: int) -> list[str]:
        """See ``ProfileContext``."""
        found = super().problems(n, n_genes)
        if self.own is not None and (np.max(self.own) >= n_genes or np.min(self.own) < -1):
            found.append(f"own holds a column that is none of the {n_genes} outputs; use -1 for no column")
        return found


def pearson_delta_perturbed(profiles: Profiles) -> np.ndarray:
    """The same from the center of the training perturbations: what all perturbations share earns nothing.

    A prediction that is the center itself, as that of the mean over training perturbations, scores 0: it is the
    strongest of the simple predictions, and would drop out of every comparison if it had no value.
    """
    return change_from_center(profiles)


LARGEST = 20
"""Genes of largest true effect that ``mse_top20`` looks at."""


def own_columns(record: Pseudobulk) -> np.ndarray:
    """Columns of the genes that each condition perturbs, int64 [n, K]; -1 for a gene that is not measured, and pads."""
    place, targets = {gene: i for i, gene in enumerate(record.genes.tolist())}, record.targets
    found = np.full((len(record), max(map(len, targets), default=1)), -1, dtype=np.int64)
    for row, genes in zip(found, targets, strict=True):
        row[: len(genes)] = [place.get(gene, -1) for gene in genes]
    return found


def mse_top20(profiles: Profiles) -> np.ndarray:
    """Mean squared error over the 20 genes of largest true change, the perturbed genes left out.

    In squared units of expression; genes tied at the edge are taken by their column. Undefined without a control.
    """
    true, _ = profiles.changes()
    size = np.where(np.isnan(true), -1.0, np.abs(true))
    row, k = np.nonzero(own_columns_of(profiles) >= 0)
    size[row, own_columns_of(profiles)[row, k]] = -1.0
    top = np.argsort(-size, axis=1, kind="stable")[:, :LARGEST]
    held = np.take_along_axis(size, top, 1) >= 0
    error = np.take_along_axis((profiles.prediction - profiles.truth) ** 2, top, 1)
    total, count = np.where(held, error, 0.0).sum(1), held.sum(1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def des(profiles: Profiles) -> np.ndarray:
    """Differential expression score: share of the truly significant genes S among the |S| of largest predicted change.

    A prediction of means has no p-values, so that all genes stand for it and the size of S is where it is cut; genes
    tied at the cut share its places, and a constant scores |S| / G. Undefined where nothing is significant.
    (Roohani et al. 2025, Virtual Cell Challenge; there an empty S scores 0 and predictions have a test of their own.)
    """
    _, predicted = profiles.changes()
    found = np.full(len(predicted), np.nan)
    significant = _context(profiles).significant
    if significant is None:
        return found
    for i, (guess, true) in enumerate(zip(np.abs(predicted), significant, strict=True)):
        held = ~np.isnan(guess)
        guess, true = guess[held], true[held]
        k = int(true.sum())
        if k == 0:
            continue
        least = np.partition(guess, len(guess) - k)[len(guess) - k]
        above, tied = guess > least, guess == least
        found[i] = (true[above].sum() + (k - above.sum()) * true[tied].mean()) / k
    return found


TIE = 1e-12
"""Distances that differ by less, relative to the largest of the row, are one: their last digits depend on the order
of the genes."""


def pds(profiles: Profiles) -> np.ndarray:
    """Perturbation discrimination: 1 - r / N with r true changes nearer (L1) to the predicted change than its own.

    The perturbed genes of the condition that is asked for are left out: that they change is known. Ties count half.
    Other conditions keep theirs, so that strong knock-downs lift any fixed vector above (N + 1) / (2 N): what has no
    skill is then the row of no change.
    (Roohani et al. 2025, Virtual Cell Challenge; there ties go by the order of the file.)
    """
    true, predicted = profiles.changes()
    return _one_minus_rank(profiles, true, predicted, _city_block, 0)


def pds_cosine(profiles: Profiles) -> np.ndarray:
    """The same by the cosine, which looks at the direction of a change alone; undefined for no change."""
    true, predicted = profiles.changes()
    return _one_minus_rank(profiles, true, predicted, _cosine, 0)


def centroid_accuracy(profiles: Profiles) -> np.ndarray:
    """Share of the other conditions whose mean expression is farther (L2) from the prediction than its own is.

    Ties count half. (Vinas Torne et al. 2025, Systema.)
    """
    return _one_minus_rank(profiles, profiles.truth, profiles.prediction, _euclid, 1)


def _one_minus_rank(
    profiles: Profiles,
    true: np.ndarray,
    predicted: np.ndarray,
    distance: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    less: int,
) -> np.ndarray:
    """1 - (number of conditions nearer than one's own) / (N - ``less``) [n]."""
    found = np.full(len(true), np.nan)
    for at, genes in _comparable(profiles, true, predicted):
        place = np.full(true.shape[1] + 1, -1)
        place[np.flatnonzero(genes)] = np.arange(genes.sum())
        own = place[own_columns_of(profiles)[at]]
        far = distance(predicted[at][:, genes], true[at][:, genes], own)
        mine = np.diagonal(far)[:, None]
        tied = np.abs(far - mine) <= TIE * np.abs(far).max(axis=1, keepdims=True)
        # One's own is tied with itself.
        nearer = ((far < mine) & ~tied).sum(1) + (tied.sum(1) - 1) / 2
        found[at] = np.where(np.isnan(far).any(1), np.nan, 1 - nearer / (len(at) - less))
    return found


def _comparable(profiles: Profiles, true: np.ndarray, predicted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Conditions that are held against each other, and the genes that all of them have, a mask [G]."""
    held = ~np.isnan(true).all(1) & ~np.isnan(predicted).all(1)
    group = _context(profiles).rank_within
    group = np.zeros(len(true)) if group is None else group
    for name in np.unique(group):
        at = np.flatnonzero((group == name) & held)
        genes = ~np.isnan(true[at]).any(0) & ~np.isnan(predicted[at]).any(0)
        if len(at) > 1 and genes.any():
            yield at, genes


def _city_block(predicted_nG: np.ndarray, true_nG: np.ndarray, own_nK: np.ndarray) -> np.ndarray:
    """L1 distances [n, n] of predicted (rows) to true (columns), without the row's own genes."""
    far = cdist(predicted_nG, true_nG, "cityblock")
    for row, column, counts in _own(own_nK):
        far -= counts * np.abs(predicted_nG[row, column][:, None] - true_nG[:, column].T)
    return far


def _cosine(predicted_nG: np.ndarray, true_nG: np.ndarray, own_nK: np.ndarray) -> np.ndarray:
    """1 - cosine [n, n] likewise: NaN for a predicted change of length 0, 1 to a true one."""
    product = predicted_nG @ true_nG.T
    mine = np.repeat((predicted_nG**2).sum(1)[:, None], len(true_nG), axis=1)
    other = np.repeat((true_nG**2).sum(1)[None], len(true_nG), axis=0)
    # What rounding leaves of a change that is all in its own gene is no length.
    least_mine, least_other = TIE * mine, TIE * other
    for row, column, counts in _own(own_nK):
        p, t = predicted_nG[row, column][:, None], true_nG[:, column].T
        product, mine, other = product - counts * p * t, mine - counts * p**2, other - counts * t**2
    length = np.sqrt(np.where(mine > least_mine, mine, np.nan) * np.maximum(other, 0))
    return 1 - np.where(other > least_other, product, 0) / np.where(other > least_other, length, 1 + 0 * length)


def _euclid(predicted_nG: np.ndarray, true_nG: np.ndarray, own_nK: np.ndarray) -> np.ndarray:
    """L2 distances [n, n] over all genes."""
    return cdist(predicted_nG, true_nG, "euclidean")


def _own(own_nK: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows and columns of the genes to leave out, and whether there is one [n, 1]; a gene named twice counts once."""
    for k in range(own_nK.shape[1]):
        column = own_nK[:, k]
        counts = (column >= 0) & ~(own_nK[:, :k] == column[:, None]).any(1)
        yield np.arange(len(column)), np.maximum(column, 0), counts[:, None]


MOST = 64
"""Cells of a condition, and controls beside them, that predictions are held against: more cost much and say little."""
ROWS = 2048
"""Cells whose distances are held at a time."""


def energy_distance(x_nG: np.ndarray, y_mG: np.ndarray) -> float:
    r"""E-distance of two sets of cells, 2 E|X - Y| - E|X - X'| - E|Y - Y'|, in units of expression.

    Euclidean distances; the means run over all pairs, a cell and itself among them, so that equal sets have 0, which is
    the least. Small sets of one kind of cell stand apart by about E|X - X'| (1/n + 1/m). (Székely and Rizzo 2013;
    Peidli et al. 2024, scPerturb.)

    Args:
        x_nG: Cells [n, G].
        y_mG: Cells [m, G].
    """
    if not len(x_nG) or not len(y_mG):
        return float("nan")
    apart = 2 * _mean_distance(x_nG, y_mG) - _mean_distance(x_nG, x_nG) - _mean_distance(y_mG, y_mG)
    return max(apart, 0.0)


def _mean_distance(x_nG: np.ndarray, y_mG: np.ndarray) -> float:
    total = sum(float(cdist(x_nG[i : i + ROWS], y_mG).sum()) for i in range(0, len(x_nG), ROWS))
    return total / (len(x_nG) * len(y_mG))


@dataclass(frozen=True, eq=False)
class CellPairs:
    """Cells of n conditions, and control cells of the half that predictions start from.

    Attributes:
        control: [n_i, G] each, float32.
        measured: [m_i, G] each, float32.
    """

    control: Sequence[np.ndarray]
    measured: Sequence[np.ndarray]
    _known: dict[int, tuple[np.ndarray, float]] = field(default_factory=dict)

    @classmethod
    def drawn(cls, record: Pseudobulk, most: int = MOST, seed: int = 0) -> CellPairs:
        """So many cells of each condition, and as many of its controls, by the condition's name.

        Args:
            record: With its cells; not blind.
            most: Cells of either kind.
            seed: Of the draw.
        """
        control: list[np.ndarray] = []
        measured: list[np.ndarray] = []
        for i, name in enumerate(record.sample_id.tolist()):
            rng = np.random.default_rng([seed, zlib.crc32(str(name).encode())])
            for found, cells in ((control, record.input_cells(i)), (measured, record.members(i))):
                at = np.sort(rng.choice(cells, min(most, len(cells)), replace=False))
                found.append(dense(record.cells.X[at]))
        return cls(control, measured)

    def distance(self, i: int, change_G: np.ndarray) -> float:
        """E-distance of the measured cells of condition i to its controls, all moved by ``change_G``, as
        ``energy_distance``.

        What no change alters, distances within either set and all products of cells, is computed once.
        """
        x_SG, y_RG = self.control[i], self.measured[i]
        if i not in self._known:
            within = _mean_distance(x_SG, x_SG) + _mean_distance(y_RG, y_RG)
            self._known[i] = cdist(x_SG, y_RG, "sqeuclidean"), within
        square_SR, within = self._known[i]
        # |x + d - y|^2 = |x - y|^2 + 2 d.x - 2 d.y + |d|^2
        x_S, y_R = x_SG @ change_G, y_RG @ change_G
        moved_SR = square_SR + 2 * (x_S[:, None] - y_R) + change_G @ change_G
        return max(2 * float(np.sqrt(np.maximum(moved_SR, 0)).mean()) - within, 0.0)


def predicted_cells(record: Pseudobulk, prediction: np.ndarray, n_cells: int = MOST, seed: int = 0) -> np.ndarray:
    """Control cells moved by the predicted change, float32 [n, n_cells, G]; below 0 there is no expression.

    Args:
        record: n conditions with their controls.
        prediction: Mean expression [n, G].
        n_cells: A condition; drawn with replacement where there are fewer controls.
        seed: Of the draw, with the condition's name.
    """
    change, sets = prediction - record.input_control, []
    for i, name in enumerate(record.sample_id.tolist()):
        rng, cells = np.random.default_rng([seed, zlib.crc32(str(name).encode())]), record.input_cells(i)
        drawn = rng.choice(cells, n_cells, replace=len(cells) < n_cells)
        sets.append(np.maximum(dense(record.cells.X[drawn]) + change[i], 0).astype(np.float32))
    return np.stack(sets)


def e_distance(profiles: Profiles) -> np.ndarray:
    """E-distance of control cells moved by the predicted change to the measured cells, in units of expression.

    Over all genes. Undefined where there are no cells to hold it against, as in pseudobulk, and where the prediction
    lacks a gene. Both sets are small, so that cells of one kind still stand apart, by the same for every system.
    """
    found, pairs = np.full(len(profiles.truth), np.nan), _context(profiles).cells
    if pairs is None or profiles.context.predicted_from is None:
        return found
    change = profiles.prediction - profiles.context.predicted_from
    for i in np.flatnonzero(np.isfinite(change).all(1)).tolist():
        found[i] = pairs.distance(i, change[i])
    return found


LEVEL = 0.05
"""False discovery rate (Benjamini and Hochberg) below which a gene counts as changed."""
GENES = 1024
"""Genes that are made dense and ranked at a time."""


def significant_genes(conditions: Pseudobulk, level: float = LEVEL) -> np.ndarray:
    """Genes whose expression differs between a condition's cells and the truth's half of its controls, bool [n, G].

    The other half is left alone: a prediction's change is taken against it, and may not share its noise with the
    choice of genes. P values are corrected over the genes of a condition.

    Args:
        conditions: With their cells; not blind.
        level: False discovery rate.
    """
    p_nG = rank_sum(conditions)
    return stats.false_discovery_control(p_nG, axis=1) < level if p_nG.size else np.zeros(p_nG.shape, dtype=bool)


def rank_sum(conditions: Pseudobulk) -> np.ndarray:
    """Two-sided p values [n, G]; 1 for a gene that never varies.

    Normal approximation, corrected for ties and continuity (Mann and Whitney 1947), as in
    ``scipy.stats.mannwhitneyu(method="asymptotic")``.
    """
    X = conditions.cells.X
    found = np.ones((len(conditions), len(conditions.genes)))
    for key in np.unique(conditions.group):
        rows = np.flatnonzero(conditions.group == key)
        own = [X[conditions.members(i)] for i in rows.tolist()]
        control = X[conditions.eval_cells(rows[0])]
        for start in range(0, found.shape[1], GENES):
            genes = slice(start, start + GENES)
            # Only values and where a condition ends matter, so that each condition's cells may be sorted by gene.
            ordered = [np.sort(dense(cells[:, genes]), axis=0) for cells in own]
            found[rows, genes] = p_values(ordered, np.sort(dense(control[:, genes]), axis=0))
    return found


def p_values(own: list[np.ndarray], control_mG: np.ndarray) -> np.ndarray:
    """P value of each of k conditions and each gene [k, G].

    The controls are sorted once for all conditions, and every cell finds its place among them.

    Args:
        own: Each condition's values [n_i, G], every column sorted.
        control_mG: Those of the controls, every column sorted.
    """
    n, m = np.array([len(x) for x in own], dtype=np.float64), len(control_mG)
    condition, start = np.repeat(np.arange(len(own)), n.astype(int)), np.cumsum([0, *map(len, own)])[:-1]
    u, ties = np.zeros((2, control_mG.shape[1], len(own)))
    columns = zip(np.ascontiguousarray(np.concatenate(own).T), np.ascontiguousarray(control_mG.T), strict=True)
    for g, (x, y) in enumerate(columns):
        left, right = y.searchsorted(x, "left"), y.searchsorted(x, "right")
        u[g] = np.add.reduceat(left + right, start) / 2
        # Runs of one value in one condition, and how often the controls have it.
        head = np.flatnonzero(np.r_[True, (x[1:] != x[:-1]) | (condition[1:] != condition[:-1])])
        t_x, t_y = np.diff(np.r_[head, len(x)]), (right - left)[head]
        more = _ties(t_x + t_y) - _ties(t_y)
        alone = np.diff(np.r_[np.flatnonzero(np.r_[True, y[1:] != y[:-1]]), m])
        ties[g] = np.bincount(condition[head], more, len(own)) + _ties(alone).sum()
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    varies = ties < total**3 - total
    z = (np.abs(u - n * m / 2) - 0.5) / np.sqrt(np.where(varies, variance, 1.0))
    return np.where(varies, np.minimum(2 * stats.norm.sf(z), 1.0), 1.0).T


def _ties(count: np.ndarray) -> np.ndarray:
    """What values that occur so often add to the correction for ties."""
    return count.astype(np.float64) ** 3 - count


def _context(profiles: Profiles) -> CellsContext:
    return profiles.context if isinstance(profiles.context, CellsContext) else CellsContext()


def own_columns_of(profiles: Profiles) -> np.ndarray:
    """Columns of each sample's perturbed genes, -1 pads, int64 [n, K]."""
    own = _context(profiles).own
    columns = np.full(len(profiles.truth), -1) if own is None else np.asarray(own)
    return columns.reshape(len(profiles.truth), -1).astype(np.int64)


CELLS = register(
    MetricSet(
        "cells",
        (
            PEARSON_DELTA,
            Metric(
                "pearson_delta_perturbed",
                pearson_delta_perturbed,
                1,
                0.0,
                True,
                "the same from the mean of the training perturbations, so that what all perturbations share "
                "earns nothing, and that mean itself scores 0",
                "genes",
            ),
            SKILL,
            MSE_OVER_GENES,
            MAE_OVER_GENES,
            Metric(
                "mse_top20",
                mse_top20,
                0,
                "undefined",
                False,
                "squared error over the 20 genes of largest true effect without the perturbed ones; no skill "
                "is the row no_change",
                "genes",
            ),
            Metric(
                "pds",
                pds,
                1,
                "fixed",
                True,
                "1 - r / N, r other conditions' true changes nearer (L1) to the prediction than its own",
                "genes",
            ),
            Metric(
                "pds_cosine",
                pds_cosine,
                1,
                "fixed",
                True,
                "the same by the cosine, which sees only the direction of a change",
                "genes",
            ),
            Metric(
                "des",
                des,
                1,
                "undefined",
                True,
                "share of the significantly changed genes among as many of largest predicted change; a "
                "constant scores their share of all genes",
                "genes",
            ),
            Metric(
                "centroid_accuracy",
                centroid_accuracy,
                1,
                0.5,
                True,
                "share of the other conditions that are farther from the prediction than its own",
                "genes",
            ),
            Metric(
                "e_distance",
                e_distance,
                0,
                "undefined",
                False,
                "energy distance of the measured cells to control cells that are moved by the predicted "
                "change, at most 64 of each; no skill is the row no_change",
                "genes",
            ),
        ),
        primary=("pearson_delta_perturbed", "pearson_delta"),
        calibration=("skill",),
        beside=("pearson_delta_perturbed", "pearson_delta", "skill", "pds", "des"),
        streaming=profile_correlation("control"),
        per_gene=True,
    )
)
"""How conditions of single cells are scored."""
