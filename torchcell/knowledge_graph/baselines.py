"""What a link predictor must beat: degrees, common neighbors, nearest sources, typed paths."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from torchcell.core.predictor import Predictor, validation_score
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError, some
from torchcell.knowledge_graph.record import Links
from torchcell.knowledge_graph.typed_graph import TypedGraph

CHUNK = 256
"""Starts walked from at once: 256 x 16,582 genes in float32 are 17 MB."""

SPARSE = 0.05
"""Share of nonzeros above which a table of masses is dense."""
GATHER = 4
"""How much dearer an entry is that is looked up than one of a product of whole tables."""

SMOOTHING = 0.1
"""Added to a degree before its logarithm: on Hetionet's CtD it lifts the AUROC of the product from .757 to .898."""

Mass = np.ndarray | sp.csr_matrix
"""How much has arrived at each node [nodes of a type, S], a column a start."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The edges of a graph as directed steps: ``CbG`` from a compound to a gene, ``CbG<`` back.

    An edge type whose two directions mean the same is one step that holds both.

    Attributes:
        node_id: All nodes [N].
        local: Position of each node among the nodes of its type, int64 [N].
        members: Nodes of each type, int64.
        ends: Node types a step joins, from and to.
        into: Per step, 0 and 1, float32 [nodes of the type it ends in, nodes of the type it starts from].
    """

    node_id: np.ndarray
    local: np.ndarray
    members: dict[str, np.ndarray]
    ends: dict[str, tuple[str, str]]
    into: dict[str, sp.csr_matrix]

    @classmethod
    def of(cls, train: Links) -> Steps:
        """The steps of the graph that training may see; a supervised edge type without edges there has empty ones."""
        graph = train.graph
        members = {node_type: np.flatnonzero(graph.node_type == node_type) for node_type in graph.node_types}
        edges, ends = {}, {}
        for edge_type in np.union1d(graph.edge_types, train.supervised).tolist():
            of_type = graph.edge_type == edge_type
            source, target = edges[edge_type] = graph.source_index[of_type], graph.target_index[of_type]
            seen = np.flatnonzero(train.edge_type == edge_type)
            example = (
                (source[0], target[0]) if len(source) else (train.source_index[seen][0], train.target_index[seen][0])
            )
            ends[edge_type] = str(graph.node_type[example[0]]), str(graph.node_type[example[1]])
        symmetric = {name for name, (a, b) in ends.items() if a == b and name not in graph.directed}
        return cls._of(graph.node_id, members, ends, edges, symmetric)

    @classmethod
    def of_typed(cls, graph: TypedGraph) -> Steps:
        """The same of a graph as a checkpoint holds it, its nodes in order of their node type."""
        bounds = zip(graph.bounds, graph.bounds[1:], strict=False)
        members = {node_type: np.arange(a, b) for node_type, (a, b) in zip(graph.node_types, bounds, strict=True)}
        ends = {name: (graph.node_types[a], graph.node_types[b]) for name, (a, b) in graph.ends.items()}
        edges = {name: tuple(end.numpy() for end in graph.edges(name)) for name in sorted(ends)}
        return cls._of(graph.node_id, members, ends, edges, graph.symmetric)

    @classmethod
    def _of(
        cls,
        node_id: np.ndarray,
        members: dict[str, np.ndarray],
        ends: Mapping[str, tuple[str, str]],
        edges: Mapping[str, tuple[np.ndarray, ...]],
        symmetric: Collection[str],
    ) -> Steps:
        local = np.zeros(len(node_id), dtype=np.int64)
        for of_type in members.values():
            local[of_type] = np.arange(len(of_type))
        joined: dict[str, tuple[str, str]] = {}
        into: dict[str, sp.csr_matrix] = {}
        for edge_type, (source, target) in edges.items():
            first, last = ends[edge_type]
            rows, columns = local[target], local[source]
            if edge_type in symmetric:
                rows, columns = np.concatenate([rows, columns]), np.concatenate([columns, rows])
            ones = np.ones(len(rows), dtype=np.float32)
            matrix = sp.csr_matrix((ones, (rows, columns)), shape=(len(members[last]), len(members[first])))
            joined[edge_type], into[edge_type] = (first, last), matrix
            if edge_type not in symmetric:
                joined[f"{edge_type}<"], into[f"{edge_type}<"] = (last, first), matrix.T.tocsr()
        return cls(node_id, local, members, joined, into)

    @property
    def size(self) -> dict[str, int]:
        """Nodes of each type."""
        return {node_type: len(nodes) for node_type, nodes in self.members.items()}

    def back(self, step: str) -> str:
        """The step that undoes ``step``."""
        other = step[:-1] if step.endswith("<") else f"{step}<"
        return other if other in self.into else step

    def leaving(self, node_type: str) -> list[str]:
        """The steps that start from a node type, sorted."""
        return sorted(step for step, (first, _) in self.ends.items() if first == node_type)

    def degree(self, step: str) -> np.ndarray:
        """How many edges a step finds at each node of the type it starts from, float64."""
        return np.diff(self.into[self.back(step)].indptr).astype(np.float64)

    def metapaths(self, edge_type: str, longest: int) -> list[tuple[str, ...]]:
        """The ways from the source type to the target type in at most ``longest`` steps, but for the edge itself."""
        start, end = self.ends[edge_type]
        found: list[tuple[str, ...]] = []
        open_ends: list[tuple[tuple[str, ...], str]] = [((), start)]
        for _ in range(longest):
            open_ends = [
                ((*path, step), self.ends[step][1]) for path, node_type in open_ends for step in self.leaving(node_type)
            ]
            found += [path for path, node_type in open_ends if node_type == end and path != (edge_type,)]
        return found

    def places(self, record: Links) -> tuple[np.ndarray, np.ndarray]:
        """Position of both ends of each candidate among the nodes of their types, int64 [n]; nodes are found by id.

        Raises:
            InputError: A record with a node that the graph does not have.
        """
        if record.node_id is self.node_id or np.array_equal(record.node_id, self.node_id):
            return self.local[record.source_index], self.local[record.target_index]
        position = {name: i for i, name in enumerate(self.node_id.tolist())}
        found = np.array([position.get(name, -1) for name in record.node_id.tolist()], dtype=np.int64)
        source, target = found[record.source_index], found[record.target_index]
        unknown = np.unique(np.concatenate([record.source_index[source < 0], record.target_index[target < 0]]))
        if len(unknown):
            raise InputError(
                f"{record.name} has other nodes than the baseline was fitted on: {some(record.node_id[unknown])}; take "
                "train and test from one record"
            )
        return self.local[source], self.local[target]


@dataclass(frozen=True, eq=False)
class OwnEdges:
    """One edge per column of a count that this column may not use: the answer, when a training pair is looked at.

    Attributes:
        edge_type: Its type.
        source: Place of its source among the nodes of its type, int64 [P].
        target: Place of its target among the nodes of its type, int64 [P].
    """

    edge_type: str
    source: np.ndarray
    target: np.ndarray


class PathCounts:
    """Sums over the paths of given metapaths; a step from i to j weighs (degree of i x degree of j)^-damping.

    Degree-weighted path counts: Himmelstein and Baranzini, PLoS Comput. Biol. 2015, 10.1371/journal.pcbi.1004259.

    Args:
        steps: The graph's steps.
        damping: Exponent of the degrees within a step; 0 counts paths.
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
        """Number of each metapath and the sums over its paths between pairs of nodes, float32 [P].

        Common beginnings are walked once, and the last step is taken into the wanted ends only, unless
        nearly all are.

        Args:
            paths: Metapaths that join the same two node types.
            start: Where each column starts, places within the node type, int64 [S].
            number: Column of each pair, 0 to S - 1 [P].
            end: Other end of each pair, places within the node type [P].
            own: Edges that are taken out, one a column, in either direction; degrees are those without them.
        """
        node_type, ones = self.steps.ends[paths[0][0]][0], np.ones(len(start), dtype=np.float32)
        first = sp.csr_matrix((ones, (start, np.arange(len(start)))), shape=(self.steps.size[node_type], len(start)))
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
        if own is None or step.removesuffix("<") != own.edge_type:
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


MOST_QUERIES, MOST_OTHERS, MOST_LABELLED = 100, 1000, 1500
"""For a choice of knobs at most so many validation edges are ranked, each among so many other nodes a side, and at most
so many labeled candidates are compared. More took a minute for each of Hetionet's large edge types."""


class LinkBaseline(Predictor):
    """A score for (source, edge type, target), fitted for each supervised edge type on the graph of train."""

    supervised: list[str]
    fitted: dict[str, Any]

    def fit(self, train: Links, val: Links, graph: CellGraph | None = None) -> Self:
        """See ``Predictor``; the graph is the one that ``train`` holds."""
        self.steps, self.supervised, self.fitted = Steps.of(train), list(train.supervised), {}
        self.prepare()
        self.train_on(train, val)
        for edge_type in self._each(train.supervised):
            of_train, of_val = (part.subset(part.edge_type == edge_type) for part in (train, val))
            self.fitted[edge_type] = self.fit_one(edge_type, of_train, of_val)
        return self

    def load_state_dict(self, state: Mapping[str, Any], graph: TypedGraph | None = None) -> Self:
        """See ``Predictor``; the graph is that of the checkpoint."""
        if graph is None:
            raise ValueError("a baseline of links needs the graph that it was fitted on")
        super().load_state_dict(state)
        self.steps = Steps.of_typed(graph)
        self.prepare()
        return self

    def predict(self, record: Links) -> np.ndarray:
        """See ``Predictor``: one score a candidate, the same in all outputs (a read-only view, float32 [n, T])."""
        source, target = self.steps.places(record)
        score = np.full(len(record), np.nan, dtype=np.float32)
        for edge_type in np.unique(record.edge_type).tolist():
            at = np.flatnonzero(record.edge_type == edge_type)
            score[at] = self.score(edge_type, self.fitted[edge_type], source[at], target[at])
        return np.broadcast_to(score[:, None], (len(record), len(record.outputs)))

    def _each(self, edge_types: Collection[str]) -> Iterator[str]:
        """The edge types, under a bar where there are several: Hetionet's larger ones take some seconds each."""
        from tqdm import tqdm

        yield from tqdm(edge_types, desc=f"{self.name}, fit", leave=False, disable=len(edge_types) < 2)

    def prepare(self) -> None:
        """What the steps alone tell, before anything is fitted or loaded; nothing by default."""

    def train_on(self, train: Links, val: Links) -> None:
        """Fit what all edge types share; nothing by default."""

    @abstractmethod
    def fit_one(self, edge_type: str, train: Links, val: Links) -> Any:
        """What is fitted for one edge type, from its candidates."""

    @abstractmethod
    def score(self, edge_type: str, fitted: Any, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Scores of pairs [P], float; the ends are places within the two node types, int64 [P]."""


class Choice:
    """What knobs are chosen by: MRR of tails and of heads among other nodes, and AUROC with both kinds of negatives.

    Edges of the training graph and of val leave the lists. The four numbers are averaged, those that are undefined
    left out.

    Args:
        steps: The training graph.
        edge_type: The edge type of all candidates.
        val: Validation candidates of this edge type, with labels.
        seed: Of the draw, where there are more edges or nodes than serve.

    Attributes:
        source: Of the pairs that are to be scored, places within the node type, int64 [P].
        target: Likewise.
    """

    def __init__(self, steps: Steps, edge_type: str, val: Links, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        source, target = steps.local[val.source_index], steps.local[val.target_index]
        labeled = rng.permutation(len(val))[:MOST_LABELLED]
        edges = np.flatnonzero(val.positive)
        known = _known(steps, edge_type, source[edges], target[edges])
        if len(edges) > MOST_QUERIES:
            edges = rng.choice(edges, MOST_QUERIES, replace=False)
        self.label, self.out = val.label[labeled], []
        pairs = [np.stack([source[labeled], target[labeled]])]
        for end, node_type in enumerate(steps.ends[edge_type]):
            others = np.arange(steps.size[node_type])
            if len(others) > MOST_OTHERS:
                others = rng.choice(others, MOST_OTHERS, replace=False)
            queries = np.repeat(np.stack([source[edges], target[edges]])[:, :, None], 1 + len(others), axis=2)
            queries[end, :, 1:] = others
            out = np.zeros(queries.shape[1:], dtype=bool)
            if len(edges):
                out = np.asarray(known[queries[0].ravel(), queries[1].ravel()]).reshape(out.shape) > 0
            out[:, :1] = False  # the edge that is scored heads its list
            self.out.append(out)
            pairs.append(queries.reshape(2, -1))
        self.source, self.target = np.concatenate(pairs, axis=1)

    def __call__(self, score: np.ndarray) -> float:
        """The mean of the four numbers for the scores of the pairs [P]; minus infinity if all are undefined."""
        own, *lists = np.split(score, np.cumsum([len(self.label), self.out[0].size]))
        values = [validation_score(column, own, "binary") for column in self.label.T]
        for ranked, out in zip(lists, self.out, strict=True):
            if len(out):
                table = np.where(out, -np.inf, ranked.reshape(out.shape))
                ties = (table == table[:, :1]).sum(1) - 1
                values.append(float(np.mean(1 / (1 + (table > table[:, :1]).sum(1) + ties / 2))))
        defined = [value for value in values if np.isfinite(value)]
        return float(np.mean(defined)) if defined else -np.inf


def _known(steps: Steps, edge_type: str, source: np.ndarray, target: np.ndarray) -> sp.csr_matrix:
    """Edges of the training graph and those given [nodes of the source type, nodes of the target type]."""
    known = steps.into[edge_type].T.tocsr()
    if steps.back(edge_type) == edge_type:
        source, target = np.concatenate([source, target]), np.concatenate([target, source])
    return known + sp.csr_matrix((np.ones(len(source)), (source, target)), shape=known.shape)


class CommonNeighbors(LinkBaseline):
    """Number of paths of two steps between the ends, through nodes of one type.

    Args:
        through: The node type between; where no such path exists for an edge type, any node type serves.
    """

    name = "common_neighbors"
    fitted: dict[str, list[tuple[str, ...]]]

    def __init__(self, through: str | None = "Gene") -> None:
        self.through = through

    def prepare(self) -> None:
        """Count paths, undamped."""
        self.counts = PathCounts(self.steps, damping=0.0)

    def fit_one(self, edge_type: str, train: Links, val: Links) -> list[tuple[str, ...]]:
        """The metapaths that are counted."""
        paths = [path for path in self.steps.metapaths(edge_type, 2) if len(path) > 1]
        return [path for path in paths if self.steps.ends[path[0]][1] == self.through] or paths

    def score(
        self, edge_type: str, fitted: list[tuple[str, ...]], source: np.ndarray, target: np.ndarray
    ) -> np.ndarray:
        """See ``LinkBaseline``; 0 for all where the node types have no neighbors in common."""
        score = np.zeros(len(source), dtype=np.float32)
        if not fitted:
            return score
        turned = [tuple(self.steps.back(step) for step in path[::-1]) for path in fitted]
        for reverse, at, start, number, end in by_rows(source, target):
            for _, counted in self.counts.between(turned if reverse else fitted, start, number, end):
                score[at] += counted
        return score


class DegreeProduct(LinkBaseline):
    """log (d_s + .1)(d_t + .1), with the degrees in the candidate's edge type in the training graph."""

    name = "degree_product"
    fitted: dict[str, None]

    def fit_one(self, edge_type: str, train: Links, val: Links) -> None:
        """Nothing is fitted: the degrees are the graph's."""

    def score(self, edge_type: str, fitted: None, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``."""
        return log_degree_product(self.steps, edge_type, source, target)


def log_degree_product(steps: Steps, edge_type: str, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """log (d_s + .1)(d_t + .1) of pairs [P]; the ends are places within the two node types."""
    first, last = (np.log(steps.degree(step) + SMOOTHING) for step in (edge_type, steps.back(edge_type)))
    return first[source] + last[target]


def profile(steps: Steps, leaving: Sequence[str]) -> sp.csr_matrix:
    """Neighbors of the nodes of a type in some steps that leave it, by rarity, rows of length 1 or 0."""
    counts = sp.hstack([steps.into[step].T for step in leaving], format="csr")
    seen = np.asarray(counts.sum(0)).ravel()
    weighed = counts @ sp.diags(np.log(counts.shape[0] / np.maximum(seen, 1)))
    length = np.sqrt(np.asarray(weighed.multiply(weighed).sum(1)).ravel())
    return (sp.diags(1 / np.maximum(length, 1e-12)) @ weighed).tocsr().astype(np.float32)


def votes(
    steps: Steps,
    edge_type: str,
    nodes: sp.csr_matrix,
    powers: Sequence[float],
    source: np.ndarray,
    target: np.ndarray,
) -> np.ndarray:
    """Sum over other sources c of cos(s, c)^power A[c, t] for pairs, float64 [P, powers].

    Args:
        steps: The graph.
        edge_type: A step; its way back has the targets' votes.
        nodes: Profiles of the node type that the step starts from.
        powers: Of the cosine.
        source: Places within that node type [P].
        target: Places within the other [P].
    """
    into, found = steps.into[edge_type], np.zeros((len(source), len(powers)))
    for turned, at, start, number, end in by_rows(source, target):
        if turned:  # only the nodes that are linked to these targets have a vote
            of_starts = into[start].tocsc()
            voters = np.flatnonzero(np.diff(of_starts.indptr))
            tables = [np.zeros((nodes.shape[0], len(start)), dtype=np.float32) for _ in powers]
            for low in range(0, len(voters), CHUNK):
                some = voters[low : low + CHUNK]
                cosine = _cosine(nodes, some)
                for table, power in zip(tables, powers, strict=True):
                    table += (of_starts[:, some] @ (cosine**power).T).T
        else:
            cosine = _cosine(nodes, start)
            tables = [into @ cosine**power for power in powers]
        for k, table in enumerate(tables):
            found[at, k] = table[end, number]
    return found


def _cosine(nodes: sp.csr_matrix, some: np.ndarray) -> np.ndarray:
    """Cosine of all nodes of a type with some of them, float32 [of the type, some]; 0 with itself."""
    cosine = nodes @ np.ascontiguousarray(nodes[some].toarray().T)
    cosine[some, np.arange(len(some))] = 0  # a node has no vote on itself
    return np.maximum(cosine, 0)


class NearestSources(LinkBaseline):
    """log (sum over other sources c of cos(s, c)^power A[c, t] + prior d_s d_t / E), d smoothed by .1.

    For compound-treats-disease these are the nearest compounds by shared targets. The cosine is that of the nodes'
    neighbors in all edge types side by side, each neighbor weighed by the log of how rare it is. Where both ends
    are of one node type and the edge type has no direction, the ends change places and the votes are added.

    Args:
        powers: Exponents of the cosine, chosen on val.
        priors: Weights of the number of edges that the degrees alone let expect, chosen on val.
    """

    name = "nearest_sources"
    fitted: dict[str, tuple[float, float]]

    def __init__(
        self,
        powers: Sequence[float] = (1.0, 2.0),
        priors: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    ) -> None:
        self.powers, self.priors = powers, priors

    def prepare(self) -> None:
        """Profiles of the nodes of each type, rows of length 1."""
        node_types = {self.steps.ends[edge_type][0] for edge_type in self.supervised}
        self.profile = {each: profile(self.steps, self.steps.leaving(each)) for each in node_types}

    def fit_one(self, edge_type: str, train: Links, val: Links) -> tuple[float, float]:
        """The power and the prior."""
        choice = Choice(self.steps, edge_type, val)
        best, chosen = -np.inf, (self.powers[0], self.priors[0])
        for power in self.powers:
            found = self._votes(edge_type, power, choice.source, choice.target)
            for prior in self.priors:
                value = choice(self._combined(edge_type, found, prior, choice.source, choice.target))
                if value > best:
                    best, chosen = value, (power, prior)
        return chosen

    def score(self, edge_type: str, fitted: tuple[float, float], source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``."""
        power, prior = fitted
        return self._combined(edge_type, self._votes(edge_type, power, source, target), prior, source, target)

    def _votes(self, edge_type: str, power: float, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Votes for pairs [P]; for both directions of an edge type that has none."""
        nodes = self.profile[self.steps.ends[edge_type][0]]
        found = votes(self.steps, edge_type, nodes, (power,), source, target)[:, 0]
        if self.steps.back(edge_type) == edge_type:
            found += votes(self.steps, edge_type, nodes, (power,), target, source)[:, 0]
        return found

    def _combined(
        self, edge_type: str, votes: np.ndarray, prior: float, source: np.ndarray, target: np.ndarray
    ) -> np.ndarray:
        expected = np.exp(log_degree_product(self.steps, edge_type, source, target))
        return np.log(votes + prior * expected / max(self.steps.into[edge_type].nnz, 1))
