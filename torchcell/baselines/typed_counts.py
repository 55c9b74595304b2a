"""Steps along the edges of a knowledge graph: degrees, and walks counted by their types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from torchcell.data.errors import InputError
from torchcell.data.links import Links

CHUNK = 256
"""Starts walked from at once: 256 x 16,582 genes in float32 are 17 MB."""

SPARSE = 0.05
"""Share of nonzeros above which a table of masses is dense."""
GATHER = 4
"""How much dearer an entry is that is looked up than one of a product of whole tables."""

SMOOTHING = 0.1
"""Added to a degree before its logarithm: on Hetionet's CtD it lifts the AUROC of the product from .757 to .898."""

Mass = np.ndarray | sp.csr_matrix
"""How much has arrived at each node [nodes of a kind, S], a column a start."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The edges of a graph as directed steps: ``CbG`` from a compound to a gene, ``CbG<`` back.

    A metaedge whose two directions mean the same is one step that holds both.

    Attributes:
        node_id: All nodes [N].
        local: Position of each node among the nodes of its kind, int64 [N].
        size: Nodes of each kind.
        ends: Kinds a step joins, from and to.
        into: Per step, 0 and 1, float32 [nodes of the kind it ends in, nodes of the kind it starts from].
    """

    node_id: np.ndarray
    local: np.ndarray
    size: dict[str, int]
    ends: dict[str, tuple[str, str]]
    into: dict[str, sp.csr_matrix]

    @classmethod
    def of(cls, train: Links) -> Steps:
        """The steps of the graph that training may see; a supervised metaedge without edges there has empty ones."""
        graph = train.graph
        local, size = np.zeros(len(graph.node_id), dtype=np.int64), {}
        for kind in graph.kinds:
            of_kind = np.flatnonzero(graph.node_kind == kind)
            local[of_kind], size[kind] = np.arange(len(of_kind)), len(of_kind)
        ends: dict[str, tuple[str, str]] = {}
        into: dict[str, sp.csr_matrix] = {}
        for metaedge in np.union1d(graph.metaedges, train.supervised).tolist():
            held = graph.metaedge == metaedge
            source, target = graph.source_index[held], graph.target_index[held]
            seen = np.flatnonzero(train.metaedge == metaedge)
            example = (
                (source[0], target[0]) if len(source) else (train.source_index[seen][0], train.target_index[seen][0])
            )
            first, last = (str(graph.node_kind[end]) for end in example)
            rows, columns = local[target], local[source]
            if first == last and metaedge not in graph.directed:
                rows, columns = np.concatenate([rows, columns]), np.concatenate([columns, rows])
            ones = np.ones(len(rows), dtype=np.float32)
            matrix = sp.csr_matrix((ones, (rows, columns)), shape=(size[last], size[first]))
            ends[metaedge], into[metaedge] = (first, last), matrix
            if not (first == last and metaedge not in graph.directed):
                ends[f"{metaedge}<"], into[f"{metaedge}<"] = (last, first), matrix.T.tocsr()
        return cls(graph.node_id, local, size, ends, into)

    def back(self, step: str) -> str:
        """The step that undoes ``step``."""
        other = step[:-1] if step.endswith("<") else f"{step}<"
        return other if other in self.into else step

    def leaving(self, kind: str) -> list[str]:
        """The steps that start from a kind, sorted."""
        return sorted(step for step, (first, _) in self.ends.items() if first == kind)

    def degree(self, step: str) -> np.ndarray:
        """How many edges a step finds at each node of the kind it starts from, float64."""
        return np.diff(self.into[self.back(step)].indptr).astype(np.float64)

    def metapaths(self, metaedge: str, longest: int) -> list[tuple[str, ...]]:
        """The ways from the source kind to the target kind in at most ``longest`` steps, but for the edge itself."""
        start, end = self.ends[metaedge]
        found: list[tuple[str, ...]] = []
        open_ends: list[tuple[tuple[str, ...], str]] = [((), start)]
        for _ in range(longest):
            open_ends = [((*path, step), self.ends[step][1]) for path, kind in open_ends for step in self.leaving(kind)]
            found += [path for path, kind in open_ends if kind == end and path != (metaedge,)]
        return found

    def require_same_nodes(self, record: Links) -> None:
        """Refuse a record over other nodes than those fitted on: positions would mean other nodes."""
        if record.node_id is not self.node_id and not np.array_equal(record.node_id, self.node_id):
            raise InputError(
                f"{record.name} has other nodes than the baseline was fitted on; take train and test from one record"
            )


@dataclass(frozen=True, eq=False)
class OwnEdges:
    """One edge per column of a walk that this column may not use: the answer, when a training pair is looked at.

    Attributes:
        metaedge: Its type.
        source: Place of its source among the nodes of its kind, int64 [P].
        target: Place of its target among the nodes of its kind, int64 [P].
    """

    metaedge: str
    source: np.ndarray
    target: np.ndarray


class Walks:
    """Sums over walks of given types; a step from i to j weighs (degree of i x degree of j)^-damping.

    Degree-weighted path counts: Himmelstein and Baranzini, PLoS Comput. Biol. 2015, 10.1371/journal.pcbi.1004259.

    Args:
        steps: The graph's steps.
        damping: Exponent of the degrees within a step; 0 counts walks.
    """

    def __init__(self, steps: Steps, damping: float) -> None:
        self.steps, self.damping = steps, damping
        self.into: dict[str, sp.csr_matrix] = {}
        for step, matrix in steps.into.items():
            out_degree, in_degree = (np.maximum(steps.degree(name), 1) ** -damping for name in (step, steps.back(step)))
            self.into[step] = (sp.diags(in_degree) @ matrix @ sp.diags(out_degree)).tocsr().astype(np.float32)

    def between(
        self,
        paths: Sequence[tuple[str, ...]],
        start: np.ndarray,
        number: np.ndarray,
        end: np.ndarray,
        own: OwnEdges | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Number of each path and the sums over its walks between pairs of nodes, float32 [P].

        Common beginnings are walked once, and the last step is taken into the ends that are asked for only, unless
        nearly all are.

        Args:
            paths: Metapaths that join the same two kinds.
            start: Where each column starts, places within the kind, int64 [S].
            number: Column of each pair, 0 to S - 1 [P].
            end: Other end of each pair, places within the kind [P].
            own: Edges that are taken out, one a column, in either direction; degrees are those without them.
        """
        kind, ones = self.steps.ends[paths[0][0]][0], np.ones(len(start), dtype=np.float32)
        first = sp.csr_matrix((ones, (start, np.arange(len(start)))), shape=(self.steps.size[kind], len(start)))
        begun: list[tuple[tuple[str, ...], Mass]] = [((), first)]
        dense: dict[tuple[str, ...], np.ndarray] = {}  # of the last beginning only
        for i in sorted(range(len(paths)), key=lambda i: paths[i]):
            before, last = paths[i][:-1], paths[i][-1]
            while before[: len(begun[-1][0])] != begun[-1][0]:
                begun.pop()
            for step in before[len(begun[-1][0]) :]:
                begun.append(((*begun[-1][0], step), self._step(begun[-1][1], step, own)))
            if before not in dense:
                dense = {before: _dense(begun[-1][1])}
            yield i, self._arrive(dense[before], last, number, end, own)

    def _step(self, mass: Mass, step: str, own: OwnEdges | None) -> Mass:
        """Carry the mass [from, S] over one step: [to, S], sparse while few nodes are reached."""
        barred = self._barred(step, own)
        if not barred:
            carried = self.into[step] @ mass
            return (
                _dense(carried) if sp.issparse(carried) and carried.nnz > SPARSE * np.prod(carried.shape) else carried
            )
        mass, column = self._leaving(_dense(mass), step, barred), np.arange(mass.shape[1])
        carried = self.into[step] @ mass
        for a, b in barred:
            carried[b, column] = self._unlinked(carried[b, column], mass[a, column], step, a, b)
        return carried

    def _arrive(
        self, mass: np.ndarray, step: str, number: np.ndarray, end: np.ndarray, own: OwnEdges | None
    ) -> np.ndarray:
        """What the step carries from the mass [from, S] into the ends of pairs, float32 [P]."""
        matrix, barred = self.into[step], self._barred(step, own)
        if barred:
            mass = self._leaving(mass, step, barred)
        size = np.diff(matrix.indptr)[end]
        if GATHER * size.sum() > matrix.nnz * mass.shape[1]:
            carried = (matrix @ mass)[end, number]
        else:
            rows = matrix[end]
            owner = np.repeat(np.arange(len(end)), size)
            # Summed as the product would, in float32 and in the same order: a fit may hang on the last digit.
            weighed = rows.data * mass[rows.indices, number[owner]]
            summed = sp.csr_matrix((weighed, rows.indices, rows.indptr), shape=rows.shape)
            carried = summed @ np.ones(rows.shape[1], dtype=np.float32)
        for a, b in barred:
            at = np.flatnonzero(b[number] == end)
            lost, reached = a[number[at]], end[at]
            carried[at] = self._unlinked(carried[at], mass[lost, number[at]], step, lost, reached)
        return carried

    def _leaving(self, mass: np.ndarray, step: str, barred: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """A copy of the mass [from, S] with that of the own edges' ends weighed by the degrees without them."""
        mass, column = mass.copy(), np.arange(mass.shape[1])
        for a, _ in barred:
            mass[a, column] *= self._regrown(step, a)
        return mass

    def _unlinked(
        self, carried: np.ndarray, mass: np.ndarray, step: str, lost: np.ndarray, reached: np.ndarray
    ) -> np.ndarray:
        """What nodes ``reached`` receive [P] without what came over the edges from the nodes ``lost``."""
        rest = carried - mass * np.asarray(self.into[step][reached, lost]).ravel()
        # Rounding must not leave a remnant of the edge where it was the only way.
        return rest * self._regrown(self.steps.back(step), reached) * (rest > 1e-6)

    def _barred(self, step: str, own: OwnEdges | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """From where to where the own edges lead in this step; both ways if the step holds both."""
        if own is None or step.removesuffix("<") != own.metaedge:
            return []
        there, back = (own.source, own.target), (own.target, own.source)
        if self.steps.back(step) == step:
            return [there, back]
        return [back] if step.endswith("<") else [there]

    def _regrown(self, step: str, at: np.ndarray) -> np.ndarray:
        """Factor by which a step's weight grows when the node ``at`` loses one edge, float32 [P]."""
        degree = np.maximum(self.steps.degree(step)[at], 1)
        return ((degree / np.maximum(degree - 1, 1)) ** self.damping).astype(np.float32)


def by_rows(
    source: np.ndarray, target: np.ndarray
) -> Iterator[tuple[bool, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Deal pairs to few starts: each goes with the end that is shared by more pairs, ``CHUNK`` starts at a time.

    Args:
        source: Any integers [P].
        target: Any integers [P].

    Yields:
        Whether the starts are targets; positions of the pairs; the starts [S]; for each pair the number of its
        start (0 to S - 1), and its other end.
    """
    if not len(source):
        return
    by_target = np.bincount(source)[source] < np.bincount(target)[target]
    for turned in (False, True):
        at = np.flatnonzero(by_target == turned)
        start, end = (target[at], source[at]) if turned else (source[at], target[at])
        order = np.argsort(start, kind="stable")
        at, end = at[order], end[order]
        starts, number = np.unique(start[order], return_inverse=True)
        cuts = np.searchsorted(number, np.arange(0, len(starts) + CHUNK, CHUNK))
        for i, (low, high) in enumerate(pairwise(cuts.tolist())):
            chosen = starts[i * CHUNK : (i + 1) * CHUNK]
            yield turned, at[low:high], chosen, number[low:high] - i * CHUNK, end[low:high]


def _dense(mass: Mass) -> np.ndarray:
    return mass if isinstance(mass, np.ndarray) else mass.toarray()
