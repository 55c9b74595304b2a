"""Candidate edges of a knowledge graph as batches of node positions; the message graph goes into the spec."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.data.errors import InputError, some
from torchcell.data.knowledge_graph import KnowledgeGraph
from torchcell.data.link_negatives import pair_keys
from torchcell.data.links import NEGATIVES, Links
from torchcell.datamodules.base import RecordDataModule
from torchcell.datamodules.batch import Batch, Packed
from torchcell.datamodules.derangement import derangement
from torchcell.datamodules.link_notes import link_notes
from torchcell.datamodules.link_ranking import LinkRanking
from torchcell.datamodules.link_request import read_links
from torchcell.datamodules.prediction_notes import Notes
from torchcell.datamodules.spec import Spec
from torchcell.graph.cell_graph import CellGraph
from torchcell.graph.typed_graph import TypedGraph
from torchcell.metrics.results import Results

RANKING = "ranking "
"""Before a metaedge, the name of the record of all candidates among which its held-out edges are ranked."""

MOST_TAKEN = 0.75
"""Share of the training candidates that a batch may hold before a note warns of it."""


@dataclass(frozen=True, eq=False)
class LinkBatch(Batch):
    """B candidates, besides the ``target`` (labels, float32 [B, T]) and ``sample`` of every batch.

    Attributes:
        source_node: Positions in the ``TypedGraph``, int64 [B].
        target_node: Positions in the ``TypedGraph``, int64 [B].
        metaedge: Positions in ``TypedGraph.metaedges``, int64 [B].
    """

    source_node: Tensor
    target_node: Tensor
    metaedge: Tensor


class PackedLinks:
    """All candidates of a record as tensors; indexing with a tensor gathers a batch.

    Args:
        record: The candidates.
        spec: Its ``knowledge_graph`` says where each node stands.
    """

    def __init__(self, record: Links, spec: Spec) -> None:
        graph = spec.extras["knowledge_graph"]
        position = {name: i for i, name in enumerate(graph["node_id"])}
        place = np.array([position[name] for name in record.node_id.tolist()], dtype=np.int64)
        code = np.empty(len(record), dtype=np.int64)
        for metaedge in record.supervised:
            code[record.metaedge == metaedge] = sorted(graph["ends"]).index(metaedge)
        self.source_node = torch.from_numpy(place[record.source_index])
        self.target_node = torch.from_numpy(place[record.target_index])
        self.metaedge = torch.from_numpy(code)
        if np.isnan(record.label[:1]).all() and 0 in record.label.strides:  # one NaN seen many times
            self.target = torch.full((), torch.nan).expand(record.label.shape)
        else:
            self.target = torch.from_numpy(np.array(record.label, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.metaedge)

    def __getitem__(self, index: Tensor) -> LinkBatch:
        inputs = (tensor.index_select(0, index) for tensor in (self.source_node, self.target_node, self.metaedge))
        return LinkBatch(self.target.index_select(0, index), index, *inputs)

    def exchanged(self, index: Tensor, source: Tensor) -> PackedLinks:
        """The same candidates and labels, but those at ``index`` have the source nodes of those at ``source``."""
        twin = copy.copy(self)
        twin.source_node = self.source_node.clone()
        twin.source_node[index] = self.source_node[source]
        return twin


class LinkDataModule(RecordDataModule):
    """Batches of candidate edges; held-out edges leave the graph that is seen, and are ranked at the end.

    Args:
        rank_edges: Held-out edges a metaedge that are ranked, where its kinds have too many pairs to score them all
            (``link_ranking.FULL``); None ranks all edges whatever it costs. The other arguments are those of
            ``RecordDataModule``.
    """

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
        super().__init__(record, split, None, batch_size, eval_batch_size, subset, seed=seed)

    @staticmethod
    def draw(record: Links, subset: int | None, split: Mapping[str, Any]) -> Links:
        """Edges and sampled non-edges of each metaedge in their shares, but at least one a fold of each.

        Drawn from all alike, a rare metaedge would have no edge left to test, and the run would be refused.
        """
        if subset is None or subset >= len(record):
            return record
        rng, least = np.random.default_rng(int(split.get("seed", 0))), int(split.get("n_folds", 5))
        kind = np.where(np.isnan(record.label), -1, record.label).astype(np.int8)
        _, stratum, size = np.unique(kind, axis=0, return_inverse=True, return_counts=True)
        taken = [
            rng.permutation(np.flatnonzero(stratum == number))[: max(least, round(subset * n / len(record)))]
            for number, n in enumerate(size.tolist())
        ]
        return record.subset(np.sort(np.concatenate(taken)))

    @cached_property
    def message_graph(self) -> KnowledgeGraph:
        """All edges but the supervised ones of val and test, which are left out in either direction.

        Raises:
            InputError: A supervised metaedge without an edge in train, val or test.
        """
        record = self.record_whole
        for part in ("train", "val", "test"):
            there = set(np.unique(record.metaedge[record.positive & (self.split.part == part)]).tolist())
            bare = [name for name in record.supervised if name not in there]
            if bare:
                counts = {name: int(((record.metaedge == name) & record.positive).sum()) for name in bare}
                raise InputError(
                    f"{record.name}: no edge in {part} after the split of the metaedges {counts} (edges in all); "
                    "predict others, use fewer folds, or keep more nodes and samples"
                )
        held = record.positive & np.isin(self.split.part, ("val", "test"))
        graph = record.graph
        gone = _either_way(graph, record.metaedge[held], record.source_index[held], record.target_index[held])
        edges = _either_way(graph, graph.metaedge, graph.source_index, graph.target_index)
        return graph.subset(~np.isin(edges, gone))

    def record(self, part: str) -> Links:
        """The candidates of one part; of the graph they show what any part may see."""
        return replace(super().record(part), graph=self.message_graph)

    def extras(self, train: Links) -> dict[str, Any]:
        """The message graph as plain values, see ``TypedGraph``, and the supervised metaedges."""
        graph = TypedGraph.from_knowledge_graph(self.message_graph)
        return {"knowledge_graph": graph.to_plain(), "supervised": list(train.supervised)}

    @staticmethod
    def pack(record: Links, spec: Spec) -> PackedLinks:
        """The candidates as tensors."""
        return PackedLinks(record, spec)

    @staticmethod
    def read_request(path: str, spec: Spec) -> Links:
        """A user's list of candidate edges for ``predict``, see ``link_request.read_links``."""
        return read_links(path, spec)

    @staticmethod
    def response(record: Links, prediction: np.ndarray, spec: Spec) -> pd.DataFrame:
        """Sample id, metaedge, ids and names of both ends, and ``score``.

        The score is that of the metaedge's first output, by which candidates are ranked. It is no probability of a
        link: training drew its non-links, and did not meet all pairs.
        """
        table = pd.DataFrame({"sample_id": record.sample_id, "metaedge": record.metaedge})
        for end, index in (("source", record.source_index), ("target", record.target_index)):
            table[end], table[f"{end}_name"] = record.node_id[index], record.graph.node_name[index]
        column = {name: len(NEGATIVES) * i for i, name in enumerate(spec.extras["supervised"])}
        own = np.array([column[name] for name in record.metaedge.tolist()], dtype=np.int64)
        return table.assign(score=prediction[np.arange(len(record)), own])

    @staticmethod
    def prediction_notes(record: Links, spec: Spec, model: Any) -> Notes:
        """Nodes without an edge in the message graph."""
        ends = record.node_id[record.source_index], record.node_id[record.target_index]
        return link_notes(record.metaedge, *ends, spec)

    def inputs(self) -> tuple[str, ...]:
        """The source node: a model that reads which pair is predicted must lose when candidates get each other's."""
        return ("source_node",)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """The candidates with each other's source nodes, within their metaedge."""
        packed = self.packed
        assert isinstance(packed, PackedLinks)
        source, orders = index.clone(), []
        for code in packed.metaedge[index].unique():
            at = torch.nonzero(packed.metaedge[index] == code).flatten()
            orders.append(derangement(packed.source_node[index[at]], generator))
            source[at] = index[at] if orders[-1] is None else index[at[orders[-1]]]
        return None if all(order is None for order in orders) else packed.exchanged(index, source)

    def ranking(self, part: str) -> LinkRanking:
        """How the edges of a part are ranked; which of them are chosen depends on the split's seed alone."""
        if part not in self._rankings:
            seed = self.split.seed
            self._rankings[part] = LinkRanking(self.record(part), self.record_whole.graph, self.rank_edges, seed)
        return self._rankings[part]

    def asked(self, part: str) -> dict[str, Callable[[], Links]]:
        """The part's candidates, and for each metaedge all among which its edges are ranked."""
        ranking = self.ranking(part)
        each = {f"{RANKING}{metaedge}": partial(ranking.record, metaedge) for metaedge in ranking.links.supervised}
        return {**super().asked(part), **each}

    def condense(self, part: str, name: str, prediction: np.ndarray) -> np.ndarray:
        """Of millions of candidates only the ranks of the metaedge's edges are kept [m, 2]."""
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
            f"The graph has {len(whole.node_id):,} nodes of {len(whole.kinds)} kinds and {len(whole):,} edges of "
            f"{len(whole.metaedges)} metaedges; the {len(whole) - len(seen):,} edges of validation and test are left "
            "out of all that any system sees.",
            f"{negatives:,} of {len(record):,} samples are sampled non-edges: pairs that nobody has linked, not pairs "
            "known to be without a link. In outputs _matched both their ends are drawn by degree, in outputs _uniform "
            "alike from all nodes of their kinds.",
            "Ranks are among all nodes of the kind that is looked for (_tail: the target given the source), edges "
            "known elsewhere in the graph being left out; ties count half.",
        ]


def _either_way(graph: KnowledgeGraph, metaedge: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One number per edge, the same in both directions, int64 [n]."""
    n_nodes, code = len(graph.node_id), np.empty(len(metaedge), dtype=np.int64)
    for number, name in enumerate(graph.metaedges):
        code[metaedge == name] = number
    return code * n_nodes**2 + pair_keys(source, target, n_nodes, True)
