"""Baselines of screens fitted to pairs: low rank, and means over similar genes by profile or by network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from torchcell.core.predictor import Predictor, validation_score
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.neighborhood import cosine_neighbors, neighborhoods
from torchcell.screen.baselines import AdditiveRidge, Mean, over_genes
from torchcell.screen.models.cell_graph_transformer.heads import alternating_least_squares
from torchcell.screen.record import KINDS, Screen

CHUNK = 512  # rows made dense at once: 512 x 4,415 items in float32 are 9 MB

OFFSETS: tuple[str, ...] = ("zero", "mean", "additive")
"""What is taken off the phenotype before interactions are looked at, and added again."""


class Offset(NamedTuple):
    """A fitted offset of one kind of ``OFFSETS``, for T phenotypes."""

    kind: str
    baseline: Mean | AdditiveRidge | None
    n_outputs: int

    def of(self, record: Screen) -> np.ndarray:
        """The offset of each sample, float64 [n, T]."""
        if self.baseline is None:
            return np.zeros((len(record), self.n_outputs))
        return self.baseline.predict(record).astype(np.float64)


def offsets(train: Screen, val: Screen) -> list[Offset]:
    """All of ``OFFSETS``, fitted on train; which one serves is chosen on val by the caller."""
    fitted = (None, Mean().fit(train, val, None), AdditiveRidge().fit(train, val, None))
    return [Offset(kind, baseline, train.phenotype.shape[1]) for kind, baseline in zip(OFFSETS, fitted, strict=True)]


def raised(weight: sp.csr_matrix, power: float) -> sp.csr_matrix:
    """sign(w) |w|^power, entry by entry."""
    raised = weight.copy()
    raised.data = np.sign(weight.data) * np.abs(weight.data) ** np.float32(power)
    return raised


def smooth_one(weight: sp.csr_matrix, matrix: sp.csr_matrix, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sum of ``matrix`` over the pair itself and the pairs in which one item gives way to a neighbor.

    Args:
        weight: W, neighbors of each item [items, items].
        matrix: R, symmetric, values of the known pairs [items, items].
        left: Items of the wanted pairs [P].
        right: The other items [P].

    Returns:
        (R + W R + R W^T)_ij, float32 [P].
    """
    row, column = np.concatenate([left, right]), np.concatenate([right, left])
    half = np.empty(len(row), dtype=np.float32)
    for chosen, rows, place in _chunks(row):
        product = (weight[rows] @ matrix).toarray()
        half[chosen] = product[place, column[chosen]]
    return np.asarray(matrix[left, right]).ravel() + half[: len(left)] + half[len(left) :]


def smooth_both(weight: sp.csr_matrix, matrix: sp.csr_matrix, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """As ``smooth_one``, and with both items replaced: ((I + W) R (I + W)^T)_ij, float32 [P].

    Only rows of the wanted items are computed: all for a whole screen, few for a few pairs.
    """
    whole = (weight + sp.eye(weight.shape[0], dtype=np.float32)).tocsr()
    total = np.empty(len(left), dtype=np.float32)
    others, place_right = np.unique(right, return_inverse=True)
    of_others = whole[others]
    for chosen, rows, place in _chunks(left):
        product = of_others @ (whole[rows] @ matrix).toarray().T
        total[chosen] = product[place_right[chosen], place]
    return total


def _chunks(index: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows that ``index`` names, some at a time: where it names them, the rows, and which of these it names there."""
    order = np.argsort(index, kind="stable")
    rows, first = np.unique(index[order], return_index=True)
    bounds = np.append(first, len(index))
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        chosen = order[bounds[start] : bounds[start + len(some)]]
        yield chosen, some, np.searchsorted(some, index[chosen])


def shrunk(total: np.ndarray, evidence: np.ndarray, prior: float) -> np.ndarray:
    """total / (evidence + prior), and 0 where there is no evidence."""
    return np.divide(total, evidence + prior, out=np.zeros_like(total, dtype=np.float64), where=evidence > 0)


def present(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """1 where ``matrix`` holds a value."""
    ones = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones


@dataclass(frozen=True, eq=False)
class Items:
    """Numbers for (gene, kind) of the kinds seen in train; the last number is the unperturbed cell.

    Attributes:
        genes: The record's gene list.
        position: Position of each kind of ``KINDS`` among the seen ones; -1 for the others.
    """

    genes: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, train: Screen) -> Items:
        """The items of a training record."""
        kinds = np.unique(train.kind)
        position = np.full(len(KINDS), -1)
        position[kinds] = np.arange(len(kinds))
        return cls(train.genes, position)

    @property
    def n_kinds(self) -> int:
        """Distinct positions; kinds that share one are the same item."""
        return int(self.position.max()) + 1

    def __len__(self) -> int:
        return len(self.genes) * self.n_kinds + 1

    def of_members(self, record: Screen) -> np.ndarray:
        """The item of each member, int64 [M], its gene found by name; ``len(self)`` for a gene or kind unknown."""
        record = over_genes(record, self.genes)
        kind = self.position[record.kind]
        unknown = (record.gene >= len(self.genes)) | (kind < 0)
        return np.where(unknown, len(self), record.gene * self.n_kinds + kind)


@dataclass(frozen=True, eq=False)
class SetPairs:
    """All unordered pairs within each set; a single gene is paired with the unperturbed cell.

    Attributes:
        owner: The sample each pair belongs to [P].
        left: Items [P].
        right: Items [P].
        known: Samples all of whose kinds and genes the items have [n]; the others have no pairs.
    """

    owner: np.ndarray
    left: np.ndarray
    right: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, record: Screen, items: Items) -> SetPairs:
        """The pairs of a record; its genes are found by name."""
        item = items.of_members(record)
        known = np.ones(len(record), dtype=bool)
        known[record.owner[item == len(items)]] = False
        return cls(*_pairs_within(record, item, known, len(items) - 1), known)

    def matrix(self, value: np.ndarray, n_items: int) -> sp.csr_matrix:
        """Symmetric matrix [items, items] of the mean value of the sets that contain a pair.

        Args:
            value: One value a sample [n]; NaN is missing.
            n_items: Side of the matrix.
        """
        has_value = ~np.isnan(value[self.owner])
        low, high = np.minimum(self.left, self.right)[has_value], np.maximum(self.left, self.right)[has_value]
        key, position = np.unique(low * n_items + high, return_inverse=True)
        # Sorted before summing, so that the order of the samples does not change the rounding.
        order = np.lexsort((value[self.owner][has_value], position))
        total = np.bincount(position[order], weights=value[self.owner][has_value][order], minlength=len(key))
        mean = (total / np.bincount(position, minlength=len(key))).astype(np.float32)
        low, high = key // n_items, key % n_items
        rows, columns = np.concatenate([low, high]), np.concatenate([high, low])
        return sp.csr_matrix((np.concatenate([mean, mean]), (rows, columns)), shape=(n_items, n_items))

    def mean(self, value: np.ndarray) -> np.ndarray:
        """Mean of a value per pair [P] over the pairs of each sample [n]; NaN for samples without pairs."""
        n = len(self.known)
        count = np.bincount(self.owner, minlength=n)
        total = np.bincount(self.owner, weights=value, minlength=n)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def strangers(self, seen: np.ndarray) -> np.ndarray:
        """Samples with an item that was not ``seen`` [items] in train, or of a kind unseen, as a mask [n]."""
        strange = ~self.known
        strange[self.owner[~(seen[self.left] & seen[self.right])]] = True
        return strange


def pairs_of_all(record: Screen, items: Items) -> SetPairs:
    """As ``SetPairs.of``, but what the items do not have is the item ``len(items)``, so that each sample has pairs."""
    every = np.ones(len(record), dtype=bool)
    return SetPairs(*_pairs_within(record, items.of_members(record), every, len(items) - 1), every)


def _pairs_within(
    record: Screen, item: np.ndarray, chosen: np.ndarray, unperturbed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Owner, left and right item of the pairs within the chosen samples; a single one's is with ``unperturbed``."""
    owners, lefts, rights = [], [], []
    for size in np.unique(record.sizes[chosen]).tolist():
        samples = np.flatnonzero((record.sizes == size) & chosen)
        members = item[record.ptr[samples, None] + np.arange(size)]
        if size == 1:
            members = np.concatenate([members, np.full_like(members, unperturbed)], axis=1)
        # Sorted members: the order in which a set is written must not change even the rounding.
        members.sort(axis=1)
        a, b = np.triu_indices(members.shape[1], 1)
        owners.append(np.repeat(samples, len(a)))
        lefts.append(members[:, a].ravel())
        rights.append(members[:, b].ravel())
    owner, left, right = (np.concatenate([np.zeros(0, dtype=np.int64), *parts]) for parts in (owners, lefts, rights))
    return owner, left, right


class _Fitted(NamedTuple):
    """One phenotype: what is taken off, both factors [items, rank] in units of ``size``, items with values."""

    offset: Offset
    size: float
    u: np.ndarray
    v: np.ndarray
    seen: np.ndarray


class LowRankALS(Predictor):
    """Pair (i, j) is offset + (u_i . v_j + u_j . v_i) / 2, with a ridge penalty on both factors.

    Known pairs are fitted with weight 1; pairs without a training value count as zeros of a small weight
    (in a screen that lists only its hits a missing pair is most often a null). The offset (zero, the mean
    or the additive ridge) and the penalty are chosen on val. Sets of three and more genes get the mean
    over their pairs, a single gene is paired with the unperturbed cell. NaN for a set with a gene that
    has no training value.

    Args:
        rank: Width of the factors.
        penalties: Lambda to choose from, for values of root mean square 1.
        missing_weight: Weight of a pair without a value.
        n_iter: Sweeps over both factors.
        seed: Of the start.

    Source: Hu, Koren, Volinsky, ICDM 2008 (alternating least squares with weighted missing entries).
    """

    name = "low_rank_als"
    items: Items
    fitted: list[_Fitted]

    def __init__(
        self,
        rank: int = 128,
        penalties: Sequence[float] = (2.0, 4.0, 8.0),
        missing_weight: float = 0.02,
        n_iter: int = 8,
        seed: int = 0,
    ) -> None:
        self.rank, self.penalties, self.missing_weight = rank, tuple(penalties), missing_weight
        self.n_iter, self.seed = n_iter, seed

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.items = Items.of(train)
        pairs, record_pairs = SetPairs.of(train, self.items), SetPairs.of(val, self.items)
        self.fitted = [self._fit_one(train, val, pairs, record_pairs, t) for t in range(train.phenotype.shape[1])]
        return self

    def _fit_one(self, train: Screen, val: Screen, pairs: SetPairs, record_pairs: SetPairs, t: int) -> _Fitted:
        def factorize(offset: Offset, rank: int, penalty: float, n_iter: int) -> _Fitted:
            matrix = pairs.matrix(train.phenotype[:, t] - offset.of(train)[:, t], len(self.items))
            return self._factorize(matrix, offset, rank, penalty, n_iter)

        def score(fitted: _Fitted) -> float:
            return validation_score(val.phenotype[:, t], _apply(fitted, val, record_pairs, t), train.task)

        # A narrow and short fit tells which offset serves; the penalty is compared at full width. Where val has
        # only genes without training values every score is -inf, and nothing is left to choose.
        candidates, penalties = offsets(train, val), self.penalties
        narrow = [factorize(offset, min(self.rank, 32), penalties[0], 3) for offset in candidates]
        scores = [score(fitted) for fitted in narrow]
        offset = candidates[int(np.argmax(scores))]
        if np.isneginf(scores).all():
            return narrow[0]
        wide = [score(factorize(offset, self.rank, penalty, 3)) for penalty in penalties]
        return factorize(offset, self.rank, penalties[int(np.argmax(wide))], self.n_iter)

    def _factorize(self, matrix: sp.csr_matrix, offset: Offset, rank: int, penalty: float, n_iter: int) -> _Fitted:
        size = (float(np.sqrt(np.mean(matrix.data**2))) if matrix.nnz else 0.0) or 1.0
        scaled = sp.csr_matrix((matrix.data / size, matrix.indices, matrix.indptr), shape=matrix.shape)
        u, v = alternating_least_squares(scaled, rank, penalty, self.missing_weight, n_iter, self.seed)
        seen = np.diff(matrix.indptr) > 0
        return _Fitted(offset, size, u, v, seen)

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``."""
        record_pairs = SetPairs.of(record, self.items)
        columns = [_apply(fitted, record, record_pairs, t) for t, fitted in enumerate(self.fitted)]
        return np.stack(columns, axis=1).astype(np.float32)


def _apply(fitted: _Fitted, record: Screen, record_pairs: SetPairs, t: int) -> np.ndarray:
    """Predictions of phenotype t for a record with the pairs ``record_pairs`` [n]; NaN with a gene unseen in train."""
    i, j, u, v = record_pairs.left, record_pairs.right, fitted.u, fitted.v
    product = np.einsum("pr,pr->p", u[i], v[j]) + np.einsum("pr,pr->p", u[j], v[i])
    prediction = fitted.offset.of(record)[:, t] + record_pairs.mean(fitted.size / 2 * product)
    return np.where(record_pairs.strangers(fitted.seen), np.nan, prediction)


@dataclass(frozen=True, eq=False)
class _FittedNeighbors:
    """One phenotype: what is taken off, the training pairs, who is near whom, and the prior."""

    offset: Offset
    matrix: sp.csr_matrix
    weight: sp.csr_matrix
    prior: float


class NetworkNeighbors(Predictor):
    """Pair (i, j) is the weighted mean of the training pairs (k, l), k near or equal i, l near or equal j.

    Nearness is the cosine of two genes' neighborhoods in all relations and, where the graph has them, of
    their annotations. The mean is shrunk towards an offset (zero, the mean or the additive ridge,
    chosen on val), which is the prediction of a set that no training pair is near to. Larger sets get the
    mean over their pairs, a single gene is paired with the unperturbed cell. NaN without a graph, or for
    a kind of perturbation unseen in train.

    Args:
        k: Neighbors a gene.
        powers: Exponents of the cosine to choose from.
        priors: Pseudo-evidence to choose from, in units of the mean evidence of the validation pairs.
    """

    name = "network_neighbors"
    items: Items
    n_outputs: int
    fitted: list[_FittedNeighbors]

    def __init__(
        self,
        k: int = 50,
        powers: Sequence[float] = (1.0, 1.5, 2.0),
        priors: Sequence[float] = (0.03, 0.1, 0.3, 1.0),
    ) -> None:
        self.k, self.powers, self.priors = k, tuple(powers), tuple(priors)

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.items, self.n_outputs, self.fitted = Items.of(train), train.phenotype.shape[1], []
        if graph is None:
            return self
        # The same gene perturbed in another way is another item, near none of this kind.
        genes = sp.kron(neighborhoods(graph, train.genes), sp.eye(self.items.n_kinds, dtype=np.float32))
        feature = sp.vstack([genes, sp.csr_matrix((1, genes.shape[1]), dtype=np.float32)], format="csr")
        cosine = cosine_neighbors(feature, self.k)
        weights = [raised(cosine, power) for power in self.powers]
        pairs, record_pairs = SetPairs.of(train, self.items), SetPairs.of(val, self.items)
        for t in range(train.phenotype.shape[1]):
            self.fitted.append(self._fit_one(train, val, pairs, record_pairs, t, weights))
        return self

    def _fit_one(
        self,
        train: Screen,
        val: Screen,
        pairs: SetPairs,
        record_pairs: SetPairs,
        t: int,
        weights: Sequence[sp.csr_matrix],
    ) -> _FittedNeighbors:
        best, best_score = None, -np.inf
        candidates = offsets(train, val)
        known = present(pairs.matrix(train.phenotype[:, t], len(self.items)))
        for weight in weights:
            evidence = smooth_both(weight, known, record_pairs.left, record_pairs.right)
            middle = float(evidence.mean()) if len(evidence) else 1.0
            for offset in candidates:
                matrix = pairs.matrix(train.phenotype[:, t] - offset.of(train)[:, t], len(self.items))
                total = smooth_both(weight, matrix, record_pairs.left, record_pairs.right)
                for prior in self.priors:
                    prediction = offset.of(val)[:, t] + record_pairs.mean(shrunk(total, evidence, prior * middle))
                    score = validation_score(val.phenotype[:, t], prediction, train.task)
                    if best is None or score > best_score:
                        best, best_score = _FittedNeighbors(offset, matrix, weight, prior * middle), score
        assert best is not None
        return best

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``."""
        if not self.fitted:
            return np.full((len(record), self.n_outputs), np.nan, dtype=np.float32)
        record_pairs = SetPairs.of(record, self.items)
        columns = []
        for t, fitted in enumerate(self.fitted):
            weight = fitted.weight
            total = smooth_both(weight, fitted.matrix, record_pairs.left, record_pairs.right)
            evidence = smooth_both(weight, present(fitted.matrix), record_pairs.left, record_pairs.right)
            columns.append(fitted.offset.of(record)[:, t] + record_pairs.mean(shrunk(total, evidence, fitted.prior)))
        return np.stack(columns, axis=1).astype(np.float32)


class ProfileNeighbors(Predictor):
    """Pair (i, j) is the weighted mean of the training pairs (k, j), k near i, and (i, l), l near j.

    A gene's profile is its row in the matrix of training pairs; nearness is the cosine of two rows. The
    mean is shrunk towards an offset (zero, the mean or the additive ridge, chosen on val). Sets of three
    and more genes get the mean over their pairs, a single gene is paired with the unperturbed cell.
    NaN for a set with a gene that has no training value: it has no profile.

    Args:
        k: Neighbors a gene.
        powers: Exponents of the cosine to choose from.
        priors: Pseudo-evidence to choose from, in units of the mean evidence of the validation pairs.
        damping: Added to the length of a profile, in root mean squares of the values.
    """

    name = "profile_neighbors"
    items: Items
    fitted: list[_FittedNeighbors]

    def __init__(
        self,
        k: int = 500,
        powers: Sequence[float] = (2.0, 3.0),
        priors: Sequence[float] = (0.03, 0.1, 0.3, 1.0),
        damping: float = 2.0,
    ) -> None:
        self.k, self.powers, self.priors, self.damping = k, tuple(powers), tuple(priors), damping

    def fit(self, train: Screen, val: Screen, graph: CellGraph | None) -> Self:
        """See ``Predictor``."""
        self.items = Items.of(train)
        pairs, record_pairs = SetPairs.of(train, self.items), SetPairs.of(val, self.items)
        self.fitted = [self._fit_one(train, val, pairs, record_pairs, t) for t in range(train.phenotype.shape[1])]
        return self

    def _fit_one(self, train: Screen, val: Screen, pairs: SetPairs, record_pairs: SetPairs, t: int) -> _FittedNeighbors:
        candidates = [
            (offset, pairs.matrix(train.phenotype[:, t] - offset.of(train)[:, t], len(self.items)))
            for offset in offsets(train, val)
        ]
        strange = record_pairs.strangers(_seen(candidates[0][1]))
        truth = np.where(strange, np.nan, val.phenotype[:, t])
        if np.isnan(truth).all():  # held-out genes have no profile: nothing to choose by, nothing to predict
            offset, matrix = candidates[0]
            return _FittedNeighbors(offset, matrix, raised(self._cosine(matrix), self.powers[0]), self.priors[0])
        best, best_score = None, -np.inf
        for offset, matrix in candidates:
            cosine = self._cosine(matrix)
            for power in self.powers:
                weight = raised(cosine, power)
                total, evidence = _evidence(weight, matrix, record_pairs)
                middle = float(evidence.mean())
                for prior in self.priors:
                    prediction = offset.of(val)[:, t] + record_pairs.mean(shrunk(total, evidence, prior * middle))
                    score = validation_score(truth, prediction, train.task)
                    if best is None or score > best_score:
                        best, best_score = _FittedNeighbors(offset, matrix, weight, prior * middle), score
        assert best is not None
        return best

    def _cosine(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        size = float(np.sqrt(np.mean(matrix.data**2))) if matrix.nnz else 1.0
        return cosine_neighbors(matrix, self.k, self.damping * size)

    def predict(self, record: Screen) -> np.ndarray:
        """See ``Predictor``."""
        record_pairs = SetPairs.of(record, self.items)
        columns = []
        for t, fitted in enumerate(self.fitted):
            total, evidence = _evidence(fitted.weight, fitted.matrix, record_pairs)
            column = fitted.offset.of(record)[:, t] + record_pairs.mean(shrunk(total, evidence, fitted.prior))
            columns.append(np.where(record_pairs.strangers(_seen(fitted.matrix)), np.nan, column))
        return np.stack(columns, axis=1).astype(np.float32)


def _seen(matrix: sp.csr_matrix) -> np.ndarray:
    """Items with a training value [items]."""
    return np.diff(matrix.indptr) > 0


def _evidence(weight: sp.csr_matrix, matrix: sp.csr_matrix, record_pairs: SetPairs) -> tuple[np.ndarray, np.ndarray]:
    total = smooth_one(weight, matrix, record_pairs.left, record_pairs.right)
    return total, smooth_one(abs(weight), present(matrix), record_pairs.left, record_pairs.right)
