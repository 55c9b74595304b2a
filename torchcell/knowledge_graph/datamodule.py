"""A knowledge graph as batches of candidate edges, and the ranking of held-out ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.core.batch import Batch, Packed, PackedLoader
from torchcell.core.datamodule import RecordDataModule, derangement
from torchcell.core.prediction_notes import Notes
from torchcell.core.prior import InnerPart, Prior
from torchcell.core.spec import Spec
from torchcell.evaluation.results import Results
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError, some
from torchcell.knowledge_graph.lists import Lists
from torchcell.knowledge_graph.record import KnowledgeGraph, Links
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.table import link_notes, read_links
from torchcell.knowledge_graph.task import TASK
from torchcell.knowledge_graph.typed_graph import TypedGraph

FULL = 1_000_000
"""Pairs of two node types that are scored in one table for all edges; above, only the rows and columns in need."""
AT_ONCE = 4_000_000
"""Scores that are compared at a time: 32 MB."""

ENDS: tuple[str, ...] = ("tail", "head")
"""Which end is looked for: the target given the source, or the source given the target."""


@dataclass(frozen=True, eq=False)
class Block:
    """Candidates of one edge type: every one of ``source`` [a] with every one of ``target`` [b], row by row.

    The first of them is the candidate number ``start`` of its edge type.
    """

    source: np.ndarray
    target: np.ndarray
    start: int

    def __len__(self) -> int:
        return len(self.source) * len(self.target)

    def table(self, score: np.ndarray) -> np.ndarray:
        """The block's part of the scores of all candidates of the edge type, as a table [a, b]."""
        return score[self.start : self.start + len(self)].reshape(len(self.source), len(self.target))


class LinkRanking:
    """Candidates for the ranking of a part's edges, and the ranks that scores give them.

    Edge type by edge type, so that the candidates of one are in memory at a time: Hetionet's 24 have 26 million.

    Args:
        links: Candidates of the part; their graph is what may be seen.
        known: All edges there are: those of the same edge type leave an edge's list, but for the edge itself.
        limit: Edges an edge type that are ranked where its node types have more than ``FULL`` pairs; None ranks all.
        seed: Of the choice of edges.
    """

    def __init__(self, links: Links, known: KnowledgeGraph, limit: int | None, seed: int = 0) -> None:
        self.links, self.known = links, known
        self.edge = np.empty(0, dtype=np.int64)
        self._blocks: dict[str, tuple[Block, Block]] = {}
        for number, edge_type in enumerate(links.supervised):
            nodes = [np.flatnonzero(known.node_type == node_type) for node_type in known.ends[edge_type]]
            chosen = np.flatnonzero((links.edge_type == edge_type) & links.positive)
            whole = len(nodes[0]) * len(nodes[1]) <= FULL
            if not whole and limit is not None and limit < len(chosen):
                chosen = np.sort(np.random.default_rng([seed, number]).permutation(chosen)[:limit])
            self.edge = np.concatenate([self.edge, chosen])
            given = [np.unique(end[chosen]) for end in (links.source_index, links.target_index)]
            tail = Block(nodes[0] if whole else given[0], nodes[1], start=0)
            head = tail if whole else Block(nodes[0], given[1], start=len(tail))
            self._blocks[edge_type] = (tail, head)

    @property
    def outputs(self) -> tuple[str, ...]:
        """``<edge_type>_tail`` and ``<edge_type>_head`` of each supervised edge type, in order."""
        return tuple(f"{edge_type}_{end}" for edge_type in self.links.supervised for end in ENDS)

    def record(self, edge_type: str) -> Links:
        """All candidates of an edge type that are to be scored, without labels."""
        blocks = list(dict.fromkeys(self._blocks[edge_type]))
        n = sum(map(len, blocks))
        return replace(
            self.links,
            edge_type=np.full(n, edge_type),
            source_index=np.concatenate([np.repeat(block.source, len(block.target)) for block in blocks]),
            target_index=np.concatenate([np.tile(block.target, len(block.source)) for block in blocks]),
            label=np.broadcast_to(np.float32(np.nan), (n, len(self.links.outputs))),
            positive=np.broadcast_to(np.False_, n),
        )

    def ranked(self) -> np.ndarray:
        """1 where an edge is ranked for an output, else NaN, float32 [m, 2 x edge_types]."""
        return self.together({name: np.ones((int(self._rows(name).sum()), 2)) for name in self.links.supervised})

    def ranks(self, edge_type: str, score: np.ndarray) -> np.ndarray:
        """The filtered rank of the target and the source of each edge of an edge type.

        Args:
            edge_type: One that is supervised.
            score: Of its candidates in every output [n, T]; the edge type's output for uniform non-edges is read. A
                candidate without a score (NaN) stands below all others.

        Returns:
            Ranks, 1 is best and ties count half, float32 [edges of the edge type, 2]; NaN where the edge has no score.
        """
        edge = self.edge[self._rows(edge_type)]
        source, target = self.links.source_index[edge], self.links.target_index[edge]
        true_source, true_target = self._true_pairs(edge_type)
        column = score[:, self.links.outputs.index(f"{edge_type}_uniform")]
        tail, head = self._blocks[edge_type]
        of_target = _ranks(tail.table(column), tail.source, tail.target, source, target, (true_source, true_target))
        of_source = _ranks(head.table(column).T, head.target, head.source, target, source, (true_target, true_source))
        return np.stack([of_target, of_source], axis=1).astype(np.float32)

    def together(self, ranks: Mapping[str, np.ndarray]) -> np.ndarray:
        """The ranks of all edges, from those of each edge type: float32 [m, 2 x edge_types], NaN in others' columns."""
        found = np.full((len(self.edge), len(self.outputs)), np.nan, dtype=np.float32)
        for number, edge_type in enumerate(self.links.supervised):
            columns = slice(len(ENDS) * number, len(ENDS) * (number + 1))
            found[self._rows(edge_type), columns] = ranks[edge_type]
        return found

    def _rows(self, edge_type: str) -> np.ndarray:
        """Which of the ranked edges are of an edge type, bool [m]."""
        return self.links.edge_type[self.edge] == edge_type

    def _true_pairs(self, edge_type: str) -> tuple[np.ndarray, np.ndarray]:
        """Sources and targets that are no wrong answer: all edges, and within a node type each node with itself."""
        edges = self.known.subset(self.known.edge_type == edge_type)
        source, target = edges.source_index, edges.target_index
        node_types = self.known.ends[edge_type]
        if edge_type in self.known.symmetric:
            source, target = np.concatenate([source, target]), np.concatenate([target, source])
        if node_types[0] == node_types[1]:
            self_pairs = np.flatnonzero(self.known.node_type == node_types[0])
            source, target = np.concatenate([source, self_pairs]), np.concatenate([target, self_pairs])
        return source, target


def _ranks(
    table: np.ndarray,
    given: np.ndarray,
    sought: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    true_pairs: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Ranks of the nodes ``other`` among ``sought``, in the rows of the nodes ``one``.

    Args:
        table: Scores [a, b].
        given: Nodes of its rows, sorted [a].
        sought: Nodes of its columns, sorted [b].
        one: Node of the row of each edge [m].
        other: Node that is looked for [m].
        true_pairs: Row and column node of what does not count against an edge [k] each.
    """
    row, column = np.searchsorted(given, one), np.searchsorted(sought, other)
    inside = np.isin(true_pairs[0], given)
    true_row = np.searchsorted(given, true_pairs[0][inside])
    true_column = np.searchsorted(sought, true_pairs[1][inside])
    true_column = true_column[np.argsort(true_row, kind="stable")]
    sizes = np.bincount(true_row, minlength=len(given))
    start = np.concatenate([[0], np.cumsum(sizes)])
    found, step = np.empty(len(one)), max(1, AT_ONCE // max(len(sought), 1))
    for first in range(0, len(one), step):
        rows, columns = row[first : first + step], column[first : first + step]
        scores = table[rows]
        own = scores[np.arange(len(rows)), columns]
        scores = np.where(np.isnan(scores), -np.inf, scores)
        above = (scores > own[:, None]).sum(1)
        level = (scores == own[:, None]).sum(1) - 1  # but itself
        # The true ones of each row are taken off again, a ragged list per edge.
        owner = np.repeat(np.arange(len(rows)), sizes[rows])
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(sizes[rows]) - sizes[rows], sizes[rows])
        listed = true_column[start[rows][owner] + offset]
        others = listed != columns[owner]
        owner, value = owner[others], scores[owner[others], listed[others]]
        above -= np.bincount(owner[value > own[owner]], minlength=len(rows))
        level -= np.bincount(owner[value == own[owner]], minlength=len(rows))
        found[first : first + step] = np.where(np.isnan(own), np.nan, 1 + above + level / 2)
    return found


RANKING = "ranking "
"""Before an edge type, the name of the record of all candidates among which its held-out edges are ranked."""

MOST_TAKEN = 0.75
"""Share of the training candidates that a batch may hold before a note warns of it."""


@dataclass(frozen=True, eq=False)
class LinkBatch(Batch):
    """B candidates, besides the ``target`` (labels, float32 [B, T]) and ``sample`` of every batch.

    Attributes:
        source_node: Positions in the ``TypedGraph``, int64 [B].
        target_node: Positions in the ``TypedGraph``, int64 [B].
        edge_type: Positions in ``TypedGraph.edge_types``, int64 [B].
    """

    source_node: Tensor
    target_node: Tensor
    edge_type: Tensor

    def narrow(self, start: int, stop: int) -> LinkBatch:
        """See ``Batch``; one with lists is only taken whole."""
        return super().narrow(start, stop) if self.lists is None else self


class PackedLinks:
    """All candidates of a record as tensors; indexing with a tensor gathers a batch.

    Args:
        record: The candidates.
        spec: Its ``knowledge_graph`` says where each node stands.

    Attributes:
        prior: See ``Batch``, of all candidates; none unless it is set.
    """

    prior: Tensor | None = None

    def __init__(self, record: Links, spec: KnowledgeGraphSpec) -> None:
        graph = spec.knowledge_graph
        position = {name: i for i, name in enumerate(graph.node_id)}
        place = np.array([position[name] for name in record.node_id.tolist()], dtype=np.int64)
        code = np.empty(len(record), dtype=np.int64)
        for edge_type in record.supervised:
            code[record.edge_type == edge_type] = sorted(graph.ends).index(edge_type)
        self.source_node = torch.from_numpy(place[record.source_index])
        self.target_node = torch.from_numpy(place[record.target_index])
        self.edge_type = torch.from_numpy(code)
        if np.isnan(record.label[:1]).all() and 0 in record.label.strides:  # one NaN seen many times
            self.target = torch.full((), torch.nan).expand(record.label.shape)
        else:
            self.target = torch.from_numpy(np.array(record.label, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.edge_type)

    def __getitem__(self, index: Tensor) -> LinkBatch:
        inputs = (tensor.index_select(0, index) for tensor in (self.source_node, self.target_node, self.edge_type))
        prior = None if self.prior is None else self.prior.index_select(0, index)
        return LinkBatch(self.target.index_select(0, index), index, *inputs, prior=prior)

    def exchanged(self, index: Tensor, source: Tensor, prior: Tensor | None) -> PackedLinks:
        """The same candidates and labels, but those at ``index`` have the source nodes of those at ``source``.

        ``prior`` is what a prior says of all candidates then.
        """
        twin = copy.copy(self)
        twin.source_node = self.source_node.clone()
        twin.source_node[index] = self.source_node[source]
        if prior is not None:
            twin.prior = prior
        return twin


class ListedLinks:
    """Candidates whose batches also hold the pairs that their edges are ranked among, after the candidates.

    Labels against matched non-edges are left out: a model beside a prior would learn how those were drawn.

    Args:
        packed: All candidates, then those of the lists.
        lists: Of edges among the candidates.
        n: Candidates that are no pairs of lists.
    """

    gathered_at_once = 1
    """A batch is gathered as a whole: what its edges are ranked among is no row of one of them."""

    def __init__(self, packed: PackedLinks, lists: Lists, n: int) -> None:
        self.packed, self.n = packed, n
        self.row = torch.full((n,), -1)
        self.row[torch.from_numpy(lists.edge)] = torch.arange(len(lists.edge))
        self.others = torch.from_numpy(np.where(lists.others < 0, -1, lists.others + n))
        self.column = torch.from_numpy(lists.column)
        self.matched = torch.tensor([name.endswith("_matched") for name in lists.links.outputs])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Tensor) -> LinkBatch:
        row = self.row[index]
        at = (row >= 0).nonzero()[:, 0]
        others_E2K, column_E = self.others[row[at]], self.column[row[at]]
        there = others_E2K >= 0
        drawn = torch.cat([index, others_E2K[there]])
        place = torch.full_like(others_E2K, -1)
        place[there] = torch.arange(len(index), len(drawn))
        rows_E2K = torch.cat([at[:, None, None].expand(-1, 2, 1), place], dim=2)
        lists = torch.where(rows_E2K < 0, -1, rows_E2K * self.packed.target.shape[1] + column_E[:, None, None])
        batch = self.packed[drawn]
        return replace(batch, target=batch.target.masked_fill(self.matched, torch.nan), lists=lists.flatten(0, 1))


class LinkDataModule(RecordDataModule):
    """Batches of candidate edges; held-out edges leave the graph that is seen, and are ranked at the end.

    Args:
        rank_edges: Held-out edges an edge type that are ranked, where its node types have too many pairs to score all
            (``FULL``); None ranks all edges whatever it costs. The other arguments are those of
            ``RecordDataModule``.
    """

    TASK = TASK
    takes_prior = True
    request_columns = ("source", "target")
    spec: KnowledgeGraphSpec

    def __init__(
        self,
        record: Links,
        split: dict[str, Any],
        graph: CellGraph | None = None,
        batch_size: int = 1024,
        eval_batch_size: int = 8192,
        subset: int | None = None,
        rank_edges: int | None = 100,
        seed: int = 0,
    ) -> None:
        if graph is not None:
            raise InputError("candidate edges bring their own graph; set graph=none")
        if rank_edges is not None and rank_edges < 1:
            raise InputError(f"data.rank_edges={rank_edges}: must be 1 or more, or null for all edges")
        self.rank_edges = rank_edges
        self._rankings: dict[str, LinkRanking] = {}
        self.listed: ListedLinks | None = None
        super().__init__(record, split, None, batch_size, eval_batch_size, subset, seed=seed)

    @staticmethod
    def draw(record: Links, subset: int | None, split: Mapping[str, Any]) -> Links:
        """Edges and sampled non-edges of each edge type in their shares, but at least one a fold of each.

        Drawn from all alike, a rare edge type would have no edge left to test, and the run would be refused.
        """
        if subset is None or subset >= len(record):
            return record
        rng, least = np.random.default_rng(int(split.get("seed", 0))), int(split.get("n_folds", 5))
        node_type = np.where(np.isnan(record.label), -1, record.label).astype(np.int8)
        _, stratum, size = np.unique(node_type, axis=0, return_inverse=True, return_counts=True)
        taken = [
            rng.permutation(np.flatnonzero(stratum == number))[: max(least, round(subset * n / len(record)))]
            for number, n in enumerate(size.tolist())
        ]
        return record.subset(np.sort(np.concatenate(taken)))

    @cached_property
    def message_graph(self) -> KnowledgeGraph:
        """All edges but the supervised ones of val and test, which are left out in either direction.

        Raises:
            InputError: A supervised edge type without an edge in train, val or test.
        """
        record = self.record_whole
        for part in ("train", "val", "test"):
            there = set(np.unique(record.edge_type[record.positive & (self.split.part == part)]).tolist())
            bare = [name for name in record.supervised if name not in there]
            if bare:
                counts = {name: int(((record.edge_type == name) & record.positive).sum()) for name in bare}
                raise InputError(
                    f"{record.name}: no edge in {part} after the split of the edge types {counts} (edges in all); "
                    "predict others, use fewer folds, or keep more nodes and samples"
                )
        return record.hiding(np.isin(self.split.part, ("val", "test"))).graph

    def record(self, part: str) -> Links:
        """The candidates of one part; of the graph they show what any part may see."""
        return replace(super().record(part), graph=self.message_graph)

    def make_spec(self, base: Spec, train: Links) -> KnowledgeGraphSpec:
        """The message graph as plain values, and the supervised edge types."""
        graph = TypedGraph.from_knowledge_graph(self.message_graph)
        return KnowledgeGraphSpec(**vars(base), knowledge_graph=graph.to_plain(), supervised=tuple(train.supervised))

    @cached_property
    def lists(self) -> Lists:
        """What edges of training and validation are ranked among beside a prior."""
        return Lists.of(self.record_whole, self.split.part, self.message_graph, self.split.seed)

    def predicted_by(self, prior: Prior) -> Tensor:
        """Of all candidates, then of the pairs of ``lists``."""
        return torch.cat([prior.predict(self.record_whole), prior.predict(self.lists.links)])

    def learned_from(self) -> np.ndarray:
        """The training candidates, and the pairs that their edges are ranked among."""
        index = self.split.index("train")
        return np.concatenate([index, *self._pairs_of(np.isin(self.lists.edge, index))])

    def inner_parts(self) -> Iterator[InnerPart]:
        """An inner fold's edges leave the graph; the pairs that they are ranked among are predicted with them."""
        train, index = self.record("train"), self.split.index("train")
        for fitted_on, held_out in self.inner_folds(train):
            (pairs,) = self._pairs_of(np.isin(self.lists.edge, index[held_out]))
            links = self.lists.links.subset(pairs - len(self.record_whole))
            yield InnerPart(
                train.hiding(held_out).subset(fitted_on),
                train.subset(held_out).joined(links),
                np.concatenate([index[held_out], pairs]),
            )

    def _pairs_of(self, listed: np.ndarray) -> list[np.ndarray]:
        """Where the pairs stand in ``predicted_by`` that some of the edges with lists are ranked among."""
        others = self.lists.others[listed].ravel()
        return [len(self.record_whole) + others[others >= 0]]

    def calibration_labels(self, part: str) -> np.ndarray:
        """Edges against uniform non-edges in both outputs of an edge type: how others were drawn is not learned."""
        labels = np.array(super().calibration_labels(part))
        for number, name in enumerate(self.spec.outputs):
            labels[:, number] = labels[:, self.spec.outputs.index(f"{name.rpartition('_')[0]}_uniform")]
        return labels

    def use_prior(self, prior: Prior, prediction: Tensor) -> None:
        """See ``RecordDataModule``; batches of training and validation then have lists."""
        n = len(self.record_whole)
        super().use_prior(prior, prediction[:n])
        whole = self.pack(self.record_whole.joined(self.lists.links), self.spec)
        whole.prior = prediction
        self.listed = ListedLinks(whole, self.lists, n)

    def training_loader(self, shuffle: bool, rank: int, world: int, batch_size: int) -> PackedLoader:
        """See ``RecordDataModule``."""
        loader = super().training_loader(shuffle, rank, world, batch_size)
        return loader if self.listed is None else PackedLoader(self.listed, loader.sampler, batch_size)

    def val_dataloader(self) -> PackedLoader:
        """See ``RecordDataModule``."""
        return self.loader("val", packed=self.listed, pad=False)

    @staticmethod
    def pack(record: Links, spec: KnowledgeGraphSpec) -> PackedLinks:
        """The candidates as tensors."""
        return PackedLinks(record, spec)

    @staticmethod
    def graph_of(spec: KnowledgeGraphSpec) -> TypedGraph:
        """The message graph."""
        return TypedGraph.from_plain(spec.knowledge_graph)

    @staticmethod
    def read_request(path: str, spec: KnowledgeGraphSpec) -> Links:
        """A user's list of candidate edges for ``predict``, see ``table.read_links``."""
        return read_links(path, spec)

    @staticmethod
    def to_table(record: Links, prediction: np.ndarray, spec: KnowledgeGraphSpec) -> pd.DataFrame:
        """Sample id, edge type, ids and names of both ends, and ``score``.

        The score is that of the edge type's output for uniform non-edges, by which candidates are ranked. It is no
        probability of a link: training drew its non-links, and did not meet all pairs.
        """
        table = pd.DataFrame({"sample_id": record.sample_id, "edge_type": record.edge_type})
        for end, index in (("source", record.source_index), ("target", record.target_index)):
            table[end], table[f"{end}_name"] = record.node_id[index], record.graph.node_name[index]
        column = {name: spec.outputs.index(f"{name}_uniform") for name in spec.supervised}
        own = np.array([column[name] for name in record.edge_type.tolist()], dtype=np.int64)
        return table.assign(score=prediction[np.arange(len(record)), own])

    @staticmethod
    def prediction_notes(record: Links, spec: KnowledgeGraphSpec, model: Any) -> Notes:
        """Nodes without an edge in the message graph."""
        ends = record.node_id[record.source_index], record.node_id[record.target_index]
        return link_notes(record.edge_type, *ends, spec)

    def inputs(self) -> tuple[str, ...]:
        """The source node: a model that reads which pair is predicted must lose when candidates get each other's."""
        return ("source_node",)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """The candidates with each other's source nodes, within their edge type."""
        packed = self.packed
        assert isinstance(packed, PackedLinks)
        source, orders = index.clone(), []
        for code in packed.edge_type[index].unique():
            at = torch.nonzero(packed.edge_type[index] == code).flatten()
            orders.append(derangement(packed.source_node[index[at]], generator))
            source[at] = index[at] if orders[-1] is None else index[at[orders[-1]]]
        if all(order is None for order in orders):
            return None
        prior = None
        if self.prior is not None and packed.prior is not None:
            record = self.record_whole
            place = record.source_index.copy()
            place[index.numpy()] = record.source_index[source.numpy()]
            prior = packed.prior.clone()
            prior[index] = self.prior.predict(replace(record, source_index=place).subset(index.numpy()))
        return packed.exchanged(index, source, prior)

    def ranking(self, part: str) -> LinkRanking:
        """How the edges of a part are ranked; which of them are chosen depends on the split's seed alone."""
        if part not in self._rankings:
            seed = self.split.seed
            self._rankings[part] = LinkRanking(self.record(part), self.record_whole.graph, self.rank_edges, seed)
        return self._rankings[part]

    def evaluation_inputs(self, part: str) -> dict[str, Callable[[], Links]]:
        """The part's candidates, and for each edge type all among which its edges are ranked."""
        ranking = self.ranking(part)
        each = {f"{RANKING}{edge_type}": partial(ranking.record, edge_type) for edge_type in ranking.links.supervised}
        return {**super().evaluation_inputs(part), **each}

    def summarize_prediction(self, part: str, name: str, prediction: np.ndarray) -> np.ndarray:
        """Of millions of candidates only the ranks of the edge type's edges are kept [m, 2]."""
        if not name.startswith(RANKING):
            return prediction
        return self.ranking(part).ranks(name.removeprefix(RANKING), prediction)

    def results(
        self, part: str, predictions: Mapping[str, Mapping[str, np.ndarray]], model: str, ceiling: str | None
    ) -> list[Results]:
        """Scores of the candidates with labels, then the ranks."""
        ranking = self.ranking(part)
        ranks = {
            system: ranking.together(
                {name: predictions[f"{RANKING}{name}"][system] for name in ranking.links.supervised}
            )
            for system in predictions[f"{RANKING}{ranking.links.supervised[0]}"]
        }
        at = self.split.index(part)[ranking.edge]
        of_edges = Results(
            sample_id=self.sample_id[at],
            group=self.split.group[at],
            outputs=ranking.outputs,
            measured=ranking.ranked(),
            systems=ranks,
            part=part,
            task="ranking",
            model=model,
            ceiling=ceiling,
            design=self.design(),
        )
        (candidates,) = super().results(part, predictions, model, ceiling)
        return [replace(candidates, decides=False), of_edges]

    def notes(self) -> list[str]:
        """What the graph is, what of it is hidden, and what the negatives are."""
        record = self.record_whole
        whole, seen = record.graph, self.message_graph
        negatives = int((~record.positive).sum())
        n_train = self.split.counts()["train"]
        taken = min(1.0, self.batch_size / max(n_train, 1))
        crowded = [
            f"WARNING: data.batch_size={self.batch_size:,} holds {taken:.0%} of the {n_train:,} training candidates, "
            "and a training step takes its batch's edges out of the messages: it learns from hardly any edge of "
            f"{some(record.supervised)}, while evaluation sees all. Set data.batch_size to {n_train // 4:,} or less."
        ]
        return (crowded if taken > MOST_TAKEN else []) + [
            f"The graph has {len(whole.node_id):,} nodes of {len(whole.node_types)} types and {len(whole):,} edges of "
            f"{len(whole.edge_types)} edge types; the {len(whole) - len(seen):,} edges of validation and test are left "
            "out of all that any system sees.",
            f"{negatives:,} of {len(record):,} samples are sampled non-edges: pairs that nobody has linked, not pairs "
            "known to be without a link. In outputs _matched both their ends are drawn by degree, in outputs _uniform "
            "alike from all nodes of their types.",
            "Ranks are among all nodes of the type that is looked for (_tail: the target given the source), edges "
            "known elsewhere in the graph being left out; ties count half.",
        ]
