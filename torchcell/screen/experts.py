"""``Experts``: closed-form predictions of perturbation sets, one a source of likeness, as named columns with evidence.

A source says which genes are alike: each network on its own, all networks, annotations, all of these, and the training
profiles. Each gives its own columns, for one mixed likeness can't say which of them to trust.

Of a pair, c is the gene with fewer training samples and h the other; a single gene is paired with the unperturbed cell.
A larger set has the least, mean and largest value over its pairs, where training holds such sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from torchcell.core.predictor import one_thread
from torchcell.graph.cell_graph import CellGraph, annotation_table, has_annotations
from torchcell.graph.neighborhood import ANNOTATION_WEIGHT, adjacencies, neighborhood, rows_of
from torchcell.io.errors import InputError
from torchcell.screen.baselines import AdditiveRidge, measured
from torchcell.screen.baselines_fitted import Items, SetPairs, pairs_of_all
from torchcell.screen.models.cell_graph_transformer.heads import alternating_least_squares, signed_factors
from torchcell.screen.record import KINDS, Screen

NETWORKS, GO, ALL, PROFILE, SAMPLE = "networks", "annotations", "all", "profiles", "members"
"""Sources besides the single networks; ``members`` stands for what is known of the perturbed genes themselves."""
ROWS = 512
"""Rows of likeness made dense at once."""
BLOCK = 65_536
"""Pairs looked at at once: a gather of 50 neighbors takes 13 MB."""
SPARE = 4
"""Times as many neighbors are kept as are used, since only genes with training values lend theirs."""
DAMPING = 2.0
"""Added to the length of a profile, in root mean squares of the values, so that short profiles count less."""
PULL = 3.0
"""Samples of the overall mean that a gene's own mean is shrunk by."""
SOFT = 0.5
"""Standard deviations of what the additive ridge leaves at which a soft vote levels off: a few pairs are far out."""
LEAK = 0.9
"""A relation whose weights correlate with training values above this is taken for the screen itself."""
FEWEST = 20
"""Measured pairs with an edge, from which on that is looked at."""


class Source(NamedTuple):
    """Who is near whom: the nearest other genes, nearest first [genes, K], and their cosine."""

    name: str
    near: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True, eq=False)
class Sources:
    """What a graph says of genes, each network on its own and together.

    Attributes:
        genes: Names [G].
        sources: Each network and direction, all networks, annotations where there are any, and all.
        degree: Logarithm of the number of neighbors in each network [G, R].
        blocks: Unit rows of each network, and of the annotations [G, F].
        weights: Of the blocks in ``all``.
        networks: How many of the blocks are networks.
    """

    genes: np.ndarray
    sources: list[Source]
    degree: np.ndarray
    blocks: list[sp.csr_matrix]
    weights: np.ndarray
    networks: int

    @classmethod
    def of(cls, graph: CellGraph | None, genes: np.ndarray, k: int) -> Sources:
        """Read a graph; none gives no source.

        Args:
            graph: Wild-type networks, and annotations if it has any.
            genes: Names; a gene that the graph lacks is near none.
            k: Neighbors that a gene may borrow from.
        """
        if graph is None:
            return cls(genes, [], np.empty((len(genes), 0), np.float32), [], np.empty(0), 0)
        index = graph.index(genes)
        found = [(name, matrix) for name, matrix in adjacencies(graph) if matrix.nnz]
        blocks = [rows_of(neighborhood(matrix), index).astype(np.float32) for _, matrix in found]
        # A gene's neighborhood holds the gene itself; alone in it, it is near none.
        degrees = [np.append(np.diff(matrix.indptr), 0)[index] for _, matrix in found]
        names, weights = [name for name, _ in found], [1.0] * len(found)
        if has_annotations(graph):
            blocks.append(rows_of(annotation_table(graph), index).astype(np.float32))
            names, weights = [*names, GO], [*weights, ANNOTATION_WEIGHT]
        degree = np.log1p(np.stack(degrees, 1)) if degrees else np.empty((len(genes), 0))
        made = cls(genes, [], degree.astype(np.float32), blocks, np.array(weights), len(found))
        return replace(made, sources=made._nearest(names, min(SPARE * k, len(genes) - 1)))

    @property
    def names(self) -> list[str]:
        """Of the sources, in the order of ``cosines``."""
        return [source.name for source in self.sources]

    def _nearest(self, names: list[str], k: int) -> list[Source]:
        names = self._with_sums(names)
        near: list[list[np.ndarray]] = [[] for _ in names]
        cosine: list[list[np.ndarray]] = [[] for _ in names]
        turned = [block.T.tocsr() for block in self.blocks]
        n = len(self.genes)
        for start in range(0, n, ROWS):
            rows = np.arange(start, min(start + ROWS, n))
            each = [(block[rows] @ other).toarray() for block, other in zip(self.blocks, turned, strict=True)]
            for i, value in enumerate(self._sums(each, rows[:, None], np.arange(n)[None])):
                value[np.arange(len(rows)), rows] = -1
                best = np.argpartition(-value, k - 1, axis=1)[:, :k] if k < n else np.argsort(-value, axis=1)
                own = np.take_along_axis(value, best, 1)
                order = np.lexsort((best, -own), axis=1)
                near[i].append(np.take_along_axis(best, order, 1).astype(np.int32))
                cosine[i].append(np.maximum(np.take_along_axis(own, order, 1), 0).astype(np.float32))
        return [Source(name, np.concatenate(near[i]), np.concatenate(cosine[i])) for i, name in enumerate(names)]

    def _with_sums(self, names: list[str]) -> list[str]:
        several = self.networks > 1
        together = [NETWORKS] * several + [ALL] * (self.networks > 0 and len(names) > self.networks)
        return [*names, *together]

    def _sums(self, each: list[np.ndarray], left: np.ndarray, right: np.ndarray) -> list[np.ndarray]:
        """Cosines of single blocks, then of all networks and of all blocks side by side, where these are several."""
        square = np.stack([(np.diff(block.indptr) > 0) * w**2 for block, w in zip(self.blocks, self.weights)], 1)  # noqa: B905
        made = list(each)
        for last, wanted in ((self.networks, self.networks > 1), (len(each), 0 < self.networks < len(each))):
            if wanted:
                total = sum(each[i] * np.float32(self.weights[i] ** 2) for i in range(last))
                length = np.sqrt(square[:, :last].sum(1)).astype(np.float32)
                made.append(total / np.maximum(length[left] * length[right], np.float32(1e-6)))
        return made

    def cosines(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Of pairs of genes by each source, float32 [P, S]; 0 for a gene beyond ``genes``."""
        known = (left < len(self.genes)) & (right < len(self.genes))
        found = np.zeros((len(left), len(self.sources)), dtype=np.float32)
        for at in _blocks(np.flatnonzero(known), BLOCK // 4):
            a, b = left[at], right[at]
            each = [np.asarray(block[a].multiply(block[b]).sum(1), dtype=np.float32).ravel() for block in self.blocks]
            found[at] = np.stack(self._sums(each, a, b), 1) if each else found[at]
        return found


def _blocks(index: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(index), size):
        yield index[start : start + size]


def refuse_leaks(train: Screen, graph: CellGraph | None, trusted: tuple[str, ...] = ()) -> None:
    """Refuse a relation that holds what is to be predicted.

    Args:
        train: The training part.
        graph: Its relations' weights are held against the training values of the pairs that they join.
        trusted: Relations that may agree with the values.

    Raises:
        InputError: The weights of a relation correlate with the values of a phenotype, either way.
    """
    if graph is None:
        return
    index = np.append(graph.index(train.genes), -1)  # the unperturbed cell is no gene
    pairs = SetPairs.of(train, Items(train.genes, np.zeros(len(KINDS), dtype=np.int64)))
    both = (train.sizes[pairs.owner] == 2) & (index[pairs.left] >= 0) & (index[pairs.right] >= 0)
    if not both.any():  # triples alone: no value belongs to an edge
        return
    owner, left, right = pairs.owner[both], index[pairs.left[both]], index[pairs.right[both]]
    odd = {}
    for name, matrix in adjacencies(graph):
        weight = np.asarray(matrix[left, right]).ravel()
        for t in range(train.phenotype.shape[1]):
            value = train.phenotype[owner, t]
            held = (weight != 0) & ~np.isnan(value)
            if held.sum() >= FEWEST and np.ptp(weight[held]) > 0 and np.ptp(value[held]) > 0:
                r = float(np.corrcoef(weight[held], value[held])[0, 1])
                if abs(r) > LEAK and name.removesuffix(" reversed") not in trusted:
                    odd[name.removesuffix(" reversed")] = r
    if odd:
        said = ", ".join(f"{name} (correlation {r:.2f})" for name, r in odd.items())
        raise InputError(
            f"leak: weights of graph relations agree with the training values of {train.name}: {said}. A relation made "
            "of the screen that is predicted holds the answer; leave it out of the graph (graph.relations), or, if it "
            f"was measured independently, set baselines.stack.trusted=[{','.join(odd)}]"
        )


class Table(NamedTuple):
    """The neighbors that an item borrows from, with their weights [items, k]; 0 where there are fewer."""

    name: str
    near: np.ndarray
    weight: np.ndarray

    def matrix(self) -> sp.csr_matrix:
        """The weights as a matrix [items, items]."""
        n, k = self.near.shape
        rows = np.arange(0, n * k + 1, k)
        # Copies: what drops the zeros works in place.
        made = sp.csr_matrix((self.weight.flatten(), self.near.flatten(), rows), shape=(n, n))
        made.eliminate_zeros()
        return made


class Likeness(NamedTuple):
    """How experts are made.

    Attributes:
        k: Nearest genes with training values that a gene borrows from.
        power: Of the cosine.
        rank: Width of the signed factors.
        penalty: Ridge penalty of the factors, for values of root mean square 1.
        n_iter: Sweeps over the factors.
        shrinkage: Pseudo-evidence of a vote, over the mean evidence of all pairs of genes, measured or not.
    """

    k: int = 50
    power: float = 1.5
    rank: int = 256
    penalty: float = 4.0
    n_iter: int = 4
    shrinkage: float = 3.0


@dataclass(frozen=True, eq=False)
class Learned:
    """What experts take from training samples; with the graph it says all that they predict.

    Attributes:
        items: Numbers of (gene, kind); the unperturbed cell is the last of them, whatever is unknown comes after it.
        additive: The additive ridge.
        matrix: What it leaves of each training pair [items + 1, items + 1].
        member: Of each item: its additive effect, mean value, share of values above the median, log count
            [items + 1, 4].
        factor: Signed least-squares factors of ``matrix`` [items + 1, E].
        sign: Of each [E].
        large: Whether columns are for sets of three genes or more.
    """

    items: Items
    additive: AdditiveRidge
    matrix: sp.csr_matrix
    member: np.ndarray
    factor: np.ndarray
    sign: np.ndarray
    large: bool

    @classmethod
    def of(cls, train: Screen, val: Screen, how: Likeness, items: Items, large: bool) -> Learned:
        """Fit to a record of one phenotype, all of whose samples have a value."""
        additive = AdditiveRidge().fit(train, val, None)
        pairs, n = pairs_of_all(train, items), len(items) + 1
        left = train.phenotype[:, 0] - additive.predict(train)[:, 0].astype(np.float64)
        matrix = pairs.matrix(left, n)
        size = (float(np.sqrt(np.mean(matrix.data**2))) if matrix.nnz else 0.0) or 1.0
        scaled = sp.csr_matrix((matrix.data / np.float32(size), matrix.indices, matrix.indptr), shape=matrix.shape)
        rank = max(min(how.rank // 2, n // 4), 1)
        u, v = alternating_least_squares(scaled, rank, how.penalty, n_iter=how.n_iter)
        factor, sign = signed_factors(u, v)
        member = _members(train, additive, items)
        return cls(items, additive, matrix, member, factor * np.float32(size**0.5), sign, large)


def _members(train: Screen, additive: AdditiveRidge, items: Items) -> np.ndarray:
    """See ``Learned.member``; what no training sample names has the mean of those that are."""
    n, n_genes = len(items) + 1, len(items.genes)
    item = items.of_members(train)
    value = train.phenotype[:, 0].astype(np.float64)[train.owner]
    order = np.lexsort((value, item))  # so that the order of the samples does not change the rounding
    item, value = item[order], value[order]
    count = np.bincount(item, minlength=n)
    middle, center = float(train.phenotype[:, 0].mean(dtype=np.float64)), float(np.median(train.phenotype[:, 0]))
    mean = np.bincount(item, value - middle, minlength=n) / (count + PULL)
    above = np.bincount(item, (value > center) - 0.5, minlength=n) / (count + PULL)
    effect = np.zeros(n)
    model = additive.models[0]
    if model is not None:
        weight = model.weight.reshape(n_genes, len(KINDS))
        for kind, position in enumerate(items.position.tolist()):
            if position >= 0:
                effect[np.arange(n_genes) * items.n_kinds + position] = weight[:, kind]
    table = np.stack([effect, mean, above, np.log1p(count)], 1)
    known = count > 0
    if known.any():
        table[~known, :3] = table[known, :3].mean(0)
    return table.astype(np.float32)


MEMBER = ("effect", "mean", "above", "count")


class Experts:
    """Columns of any sets, from what was learned of training samples and from the graph.

    Args:
        learned: From training.
        sources: The graph, over the items' genes.
        how: As it was for ``learned``.

    Attributes:
        names: Of the columns, ``source: what``.
    """

    def __init__(self, learned: Learned, sources: Sources, how: Likeness) -> None:
        self.learned, self.sources, self.how = learned, sources, how
        held = np.diff(learned.matrix.indptr) > 0
        held[len(learned.items) - 1 :] = False  # the unperturbed cell is near no gene
        self.trained = held
        self.rarity = learned.member[:, MEMBER.index("count")].copy()
        self.rarity[len(learned.items) - 1] = np.inf  # a single gene is c, the unperturbed cell h
        with one_thread():
            self.tables = [self._table(source) for source in sources.sources]
            self.profile, self.profile_table = self._profiles()
            self.tables.append(self.profile_table)
            self._smooth()
            self._lend()
        self.names = tuple(self._names())

    def _table(self, source: Source) -> Table:
        """The nearest of those that were trained, for each item."""
        kinds, n = self.learned.items.n_kinds, len(self.learned.items) + 1
        k = min(self.how.k, source.near.shape[1])
        near = np.zeros((n, k), dtype=np.int32)
        weight = np.zeros((n, k), dtype=np.float32)
        for kind in range(kinds):
            candidate = source.near * kinds + kind
            usable = self.trained[candidate] & (source.cosine > 0)
            best = np.argsort(~usable, axis=1, kind="stable")[:, :k]
            rows = np.arange(len(source.near)) * kinds + kind
            near[rows] = np.take_along_axis(candidate, best, 1)
            cosine = np.take_along_axis(np.where(usable, source.cosine, 0), best, 1)
            weight[rows] = cosine ** np.float32(self.how.power)
        return Table(source.name, near, weight)

    def _profiles(self) -> tuple[np.ndarray, Table]:
        """Cosine of the items' training profiles [items + 1, items + 1], and who is near whom by it, with its sign."""
        matrix = self.learned.matrix
        size = float(np.sqrt(np.mean(matrix.data**2))) if matrix.nnz else 1.0
        length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel()) + DAMPING * size
        unit = (sp.diags((self.trained / np.maximum(length, 1e-12)).astype(np.float32)) @ matrix).tocsr()
        cosine = np.asarray((unit @ unit.T).toarray(), dtype=np.float32)
        np.fill_diagonal(cosine, 0)
        n, k = len(cosine), min(self.how.k, len(cosine) - 1)
        near = np.empty((n, k), dtype=np.int32)
        for rows in _blocks(np.arange(n), ROWS):
            best = np.argpartition(-np.abs(cosine[rows]), k - 1, axis=1)[:, :k]
            near[rows] = np.sort(best, axis=1)
        weight = np.take_along_axis(cosine, near, 1)
        return cosine, Table(PROFILE, near, np.sign(weight) * np.abs(weight) ** np.float32(self.how.power))

    def _smooth(self) -> None:
        """What the training pairs say of h beside each other gene [h, k]: as measured, and with h's neighbors beside h.

        The matrices that all sources share; each comes with where it holds a value.
        """
        value = self.learned.matrix
        there, soft = value.copy(), value.copy()
        there.data = np.ones_like(there.data)
        soft.data = np.tanh(value.data / np.float32(SOFT * (value.data.std() if value.nnz else 0) or 1))
        self.smoothed = [("", value.toarray(), soft.toarray(), there.toarray())]
        # The widest of the sources, and the profiles.
        beside = [self.tables[-2]] if self.sources.sources else []
        for table in (*beside, self.profile_table):
            weight = table.matrix()
            each = [(value + weight @ value).toarray(), (soft + weight @ soft).toarray()]
            self.smoothed.append((f", {table.name} of h", *each, (there + abs(weight) @ there).toarray()))
        rows = self.trained if self.trained.any() else slice(None)
        held = [evidence[rows].mean(0) for *_, evidence in self.smoothed]
        self.middle = np.array(
            [[max(float(self._reach(table) @ mean), 1e-9) for mean in held] for table in self.tables], dtype=np.float32
        )

    def _reach(self, table: Table) -> np.ndarray:
        """Mean weight of each item as a neighbor of those that have any [items + 1]."""
        lends = np.abs(table.weight)
        some = max(int((lends > 0).any(1).sum()), 1)
        return np.bincount(table.near.ravel(), lends.ravel(), minlength=len(self.trained)) / some

    def _lend(self) -> None:
        """Factors and facts of the neighbors' mean, by each source; those of an untrained h by the widest."""
        learned = self.learned
        mean = learned.member[self.trained].mean(0) if self.trained.any() else np.zeros(len(MEMBER), np.float32)
        self.lent, self.lent_member, self.reach = [], [], []
        for table in self.tables:
            weight = table.matrix()
            total = np.abs(table.weight).sum(1)
            share = np.divide(1, total, out=np.zeros_like(total), where=total > 0)[:, None]
            self.lent.append((weight @ learned.factor) * share)
            facts = (abs(weight) @ learned.member) * share
            self.lent_member.append(np.where(total[:, None] > 0, facts, mean)[:, :3])
            self.reach.append(total)
        self.own = learned.factor.copy()
        if self.sources.sources:
            self.own[~self.trained] = self.lent[-2][~self.trained]
        self.own *= learned.sign

    def _names(self) -> Iterator[str]:
        for i, table in enumerate(self.tables):
            for what, *_ in self.smoothed:
                each = ("vote", "soft vote", "log evidence")
                yield from (f"{table.name}: {name}{what}" for name in each)
            yield from (f"{table.name}: evidence", f"{table.name}: vote for h", f"{table.name}: log evidence for h")
            yield from (f"{table.name}: factors", f"{table.name}: expected profile cosine")
            yield from (f"{table.name}: lent {what}" for what in MEMBER[:3])
            if i < len(self.sources.sources):
                yield f"{table.name}: cosine"
        yield f"{PROFILE}: cosine"
        yield f"{PROFILE}: own factors"
        for role in ("c", "h"):
            yield from (f"{SAMPLE}: {what} of {role}" for what in MEMBER)
            yield from (f"{SAMPLE}: log degree {i + 1} of {role}" for i in range(self.sources.degree.shape[1]))

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """Of ``columns``."""
        each = [f"{name}, {part}" for part in ("mean", "least", "largest") for name in self.names]
        return (*(each if self.learned.large else self.names), f"{SAMPLE}: additive", f"{SAMPLE}: number")

    def columns(self, record: Screen) -> np.ndarray:
        """Columns of each set, float32 [n, F]; its row does not depend on the other sets."""
        learned = self.learned
        pairs = pairs_of_all(record, learned.items)
        order = np.argsort(pairs.owner, kind="stable")
        found = np.empty((len(record), len(self.column_names)), dtype=np.float32)
        width, start = len(self.names), np.searchsorted(pairs.owner[order], np.arange(len(record) + 1))
        first = 0
        while first < len(record):  # whole sets, about BLOCK pairs of them
            last = max(int(np.searchsorted(start, start[first] + BLOCK, side="right")) - 1, first + 1)
            at = order[start[first] : start[last]]
            value = self._of_pairs(pairs.left[at], pairs.right[at])
            ptr = start[first:last] - start[first]
            count = np.diff(start[first : last + 1])[:, None]
            if learned.large:
                found[first:last, :width] = np.add.reduceat(value, ptr) / count
                found[first:last, width : 2 * width] = np.minimum.reduceat(value, ptr)
                found[first:last, 2 * width : 3 * width] = np.maximum.reduceat(value, ptr)
            else:
                found[first:last, :width] = value if (count == 1).all() else np.add.reduceat(value, ptr) / count
            first = last
        found[:, -2] = learned.additive.predict(record)[:, 0]
        found[:, -1] = record.sizes
        return found

    def _of_pairs(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Columns of pairs of items, float32 [P, F]."""
        turned = self.rarity[left] > self.rarity[right]
        c, h = np.where(turned, right, left), np.where(turned, left, right)
        order = np.argsort(h, kind="stable")  # rows of h are gone through once
        c, h = c[order], h[order]
        kinds = self.learned.items.n_kinds
        cosine = self.sources.cosines(c // kinds, h // kinds)
        made = np.empty((len(c), len(self.names)), dtype=np.float32)
        position = 0
        for i, table in enumerate(self.tables):
            found = [*self._votes(i, table, c, h), *self._lent(i, table, c, h)]
            if i < len(self.sources.sources):
                found.append(cosine[:, i])
            for column in found:
                made[:, position] = column
                position += 1
        rest = [self.profile[c, h], np.einsum("pe,pe->p", self.learned.factor[c], self.own[h])]
        degree = np.vstack([self.sources.degree, np.zeros((2, self.sources.degree.shape[1]), np.float32)])
        n_genes = len(self.sources.genes)
        for role in (c, h):
            rest += [*self.learned.member[role].T, *degree[np.minimum(role // kinds, n_genes)].T]
        made[:, position:] = np.stack(rest, 1)
        back = np.empty_like(made)
        back[order] = made
        return back

    def _votes(self, i: int, table: Table, c: np.ndarray, h: np.ndarray) -> Iterator[np.ndarray]:
        near, weight, size = table.near[c], table.weight[c], np.abs(table.weight[c])
        evidences = []
        for j, (_, value, soft, there) in enumerate(self.smoothed):
            evidence = _gather(there, h, near, size)
            below = evidence + np.float32(self.how.shrinkage) * self.middle[i, j]
            yield from (_gather(matrix, h, near, weight) / below for matrix in (value, soft))
            yield np.log1p(evidence / self.middle[i, j])
            evidences.append(evidence / self.middle[i, j])
        yield evidences[0]
        near, weight = table.near[h], table.weight[h]
        _, value, _, there = self.smoothed[0]
        evidence = _gather(there, c, near, np.abs(weight))
        yield _gather(value, c, near, weight) / (evidence + np.float32(self.how.shrinkage) * self.middle[i, 0])
        yield np.log1p(evidence / self.middle[i, 0])

    def _lent(self, i: int, table: Table, c: np.ndarray, h: np.ndarray) -> Iterator[np.ndarray]:
        yield np.einsum("pe,pe->p", self.lent[i][c], self.own[h])
        reach = self.reach[i][c]
        expected = _gather(self.profile, h, table.near[c], table.weight[c])
        yield expected / np.maximum(reach, np.float32(1e-6))
        yield from self.lent_member[i][c].T


def _gather(matrix: np.ndarray, row: np.ndarray, near: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sum over k of matrix[row, near_k] weight_k, float32 [P]."""
    return np.einsum("pk,pk->p", matrix[row[:, None], near], weight)


def fit_experts(
    train: Screen, val: Screen, output: int, sources: Sources, how: Likeness, items: Items, large: bool
) -> Experts:
    """Experts of one phenotype, fitted to the samples that have a value of it.

    Args:
        train: Training samples.
        val: Chooses the additive penalty.
        output: Number of the phenotype.
        sources: The graph over the items' genes.
        how: Settings.
        items: Numbers of (gene, kind).
        large: Whether columns are for sets of three genes or more.
    """
    train, val = train.subset(measured(train, output)), val.subset(measured(val, output))
    train, val = (
        replace(
            record,
            phenotype=record.phenotype[:, [output]],
            phenotype_names=("value",),
            replicates=None,
            truth=None,
        )
        for record in (train, val)
    )
    with one_thread():
        learned = Learned.of(train, val, how, items, large)
    return Experts(learned, sources, how)
