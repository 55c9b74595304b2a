"""``Links``: candidate edges with labels, the record of link prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from torchcell.data.checks import as_positions, refuse, refuse_repeats, refuse_shapes
from torchcell.data.errors import InputError, near, some
from torchcell.data.fingerprint import record_fingerprint
from torchcell.data.knowledge_graph import KnowledgeGraph, link_ids
from torchcell.data.link_negatives import draw_negatives

NEGATIVES: tuple[str, ...] = ("matched", "uniform")
"""Kinds of sampled non-edges: drawn in proportion to degree, or alike from all nodes of the two kinds. Each has an
output of its own, since the choice of negatives decides such scores."""


@dataclass(frozen=True, eq=False)
class Links:
    """Candidate edges of one or more supervised metaedges; n candidates, T outputs.

    A positive of metaedge m has 1 in both outputs of m; a negative has 0 in the one of its kind. A sampled non-edge is
    an edge that nobody knows of, not one that is ruled out.

    Attributes:
        name: Short name, e.g. ``hetionet_core``.
        graph: All nodes, and the edges that may be seen.
        metaedge: Type of each candidate [n].
        source_index: Positions in ``graph.node_id``, int64 [n].
        target_index: Positions in ``graph.node_id``, int64 [n].
        label: 1 an edge, 0 a sampled non-edge, NaN not of this output, float32 [n, T].
        outputs: ``<metaedge>_matched`` and ``<metaedge>_uniform`` for each supervised metaedge in order [T].
        positive: Whether the candidate is an edge, bool [n].
    """

    name: str
    graph: KnowledgeGraph
    metaedge: np.ndarray
    source_index: np.ndarray
    target_index: np.ndarray
    label: np.ndarray
    outputs: tuple[str, ...]
    positive: np.ndarray

    def __len__(self) -> int:
        return len(self.source_index)

    @cached_property
    def sample_id(self) -> np.ndarray:
        """``source|metaedge|target`` of each candidate [n]."""
        ids = self.node_id
        return link_ids(ids[self.source_index], self.metaedge, ids[self.target_index])

    @property
    def node_id(self) -> np.ndarray:
        """Ids of all nodes [N]."""
        return self.graph.node_id

    @property
    def target(self) -> np.ndarray:
        """The labels [n, T]; every record kind names its target so."""
        return self.label

    @property
    def task(self) -> str:
        """What the target is: 0 or 1."""
        return "binary"

    @property
    def phenotype_names(self) -> tuple[str, ...]:
        """Names of the target's columns."""
        return self.outputs

    @property
    def lost(self) -> dict[str, int]:
        """What parsing the graph left out."""
        return dict(self.graph.lost)

    @property
    def supervised(self) -> tuple[str, ...]:
        """The metaedges that are predicted, in the order of the outputs."""
        return tuple(name.removesuffix(f"_{NEGATIVES[0]}") for name in self.outputs[:: len(NEGATIVES)])

    def subset(self, index: np.ndarray) -> Links:
        """The candidates at ``index`` (integers or a mask), in that order; the graph stays whole."""
        at = as_positions(index)
        names = ("metaedge", "source_index", "target_index", "label", "positive")
        return replace(self, **{name: getattr(self, name)[at] for name in names})

    def blind(self) -> Links:
        """The same candidates without labels: what a baseline may see of a test part."""
        nothing = np.broadcast_to(np.float32(np.nan), self.label.shape)
        return replace(self, label=nothing, positive=np.broadcast_to(np.False_, len(self)))

    def twin_keys(self) -> np.ndarray:
        """A text per candidate [n]; both directions of an edge within one kind share it, of negatives none do."""
        kind, ids = self.graph.node_kind, self.node_id
        first, last = self.source_index, self.target_index
        swap = self.positive & (kind[first] == kind[last]) & (first > last)
        first, last = np.where(swap, last, first), np.where(swap, first, last)
        mark = np.where(self.positive, self.metaedge, np.char.add(self.metaedge, " not"))
        return link_ids(ids[first], mark, ids[last])

    def fingerprint(self) -> str:
        """A hash over all candidates, labels and the graph, see ``torchcell.data.fingerprint``; not over ``name``."""
        return record_fingerprint(self)

    def validate(self) -> Links:
        """Return self, or raise one ``InputError`` that names the offending candidates."""
        n, ids = len(self), self.graph.node_id
        shapes = dict.fromkeys(("metaedge", "source_index", "target_index", "positive"), (n,))
        refuse_shapes(self.name, vars(self), {**shapes, "label": (n, len(self.outputs))})
        expected = tuple(f"{metaedge}_{kind}" for metaedge in self.supervised for kind in NEGATIVES)
        if self.outputs != expected or not expected:
            raise InputError(f"{self.name}: outputs {some(self.outputs)} must be two a metaedge, as {some(expected)}")
        outside = [(index < 0) | (index >= len(ids)) for index in (self.source_index, self.target_index)]
        refuse(self.name, np.flatnonzero(outside[0] | outside[1]), "an end outside the node table", "drop it")
        refuse_repeats(self.name, self.sample_id, "links")
        odd = ~np.isin(self.metaedge, self.supervised)
        refuse(self.name, self.sample_id[odd], f"a metaedge outside {list(self.supervised)}", "list it or drop the row")
        self._validate_labels()
        return self

    def _validate_labels(self) -> None:
        held = ~np.isnan(self.label)
        odd = (held & ~np.isin(self.label, (0, 1))).any(axis=1)
        refuse(self.name, self.sample_id[odd], "a label other than 0 or 1", "recode it")
        of_metaedge = np.repeat(self.metaedge[:, None] == np.array(self.supervised), len(NEGATIVES), axis=1)
        stray = (held & ~of_metaedge).any(axis=1)
        refuse(self.name, self.sample_id[stray], "a label of another metaedge's output", "leave it NaN")
        unlike = held.any(axis=1) & ((self.label == 1).any(axis=1) != self.positive)
        refuse(self.name, self.sample_id[unlike], "a label that denies what `positive` says", "mend one of the two")


def link_samples(
    graph: KnowledgeGraph, metaedges: str | Sequence[str], negatives_per_positive: int = 1, seed: int = 0
) -> Links:
    """All edges of the supervised metaedges, then for each of them sampled pairs of the same kinds that are no edge.

    Args:
        graph: A validated graph.
        metaedges: What to predict: a metaedge, several, or ``all``.
        negatives_per_positive: Sampled non-edges of each kind (see ``NEGATIVES``) per edge.
        seed: Of the sampling; the negatives of a metaedge do not depend on which others are asked for.

    Returns:
        By metaedge the edges in the graph's order, matched negatives, uniform ones.

    Raises:
        InputError: An unknown metaedge or one named twice, fewer than one negative, or more than can be drawn.
    """
    wanted = _wanted(graph, metaedges)
    if negatives_per_positive < 1:
        raise InputError(f"negatives_per_positive={negatives_per_positive}: must be 1 or more")
    pairs, labels = [], []
    for i, metaedge in enumerate(wanted):
        edges = graph.subset(graph.metaedge == metaedge)
        edge_pairs = np.stack([edges.source_index, edges.target_index], axis=1)
        rng = np.random.default_rng([seed, graph.metaedges.index(metaedge)])
        negatives = draw_negatives(graph, edges, negatives_per_positive * len(edges), rng)
        label = np.full((len(edges) + 2 * len(negatives[0]), len(NEGATIVES) * len(wanted)), np.nan, dtype=np.float32)
        own = label[:, len(NEGATIVES) * i :]  # a view
        own[: len(edges), : len(NEGATIVES)] = 1
        own[len(edges) : len(edges) + len(negatives[0]), 0] = 0
        own[len(edges) + len(negatives[0]) :, 1] = 0
        pairs.append(np.concatenate([edge_pairs, *negatives]))
        labels.append(label)
    source, target = np.concatenate(pairs).T
    label = np.concatenate(labels)
    return Links(
        name=graph.name,
        graph=graph,
        metaedge=np.repeat(wanted, [len(of_one) for of_one in pairs]),
        source_index=np.ascontiguousarray(source),
        target_index=np.ascontiguousarray(target),
        label=label,
        outputs=tuple(f"{metaedge}_{kind}" for metaedge in wanted for kind in NEGATIVES),
        positive=(label == 1).any(axis=1),
    )


def _wanted(graph: KnowledgeGraph, metaedges: str | Sequence[str]) -> list[str]:
    """The metaedges by name; unknown ones are an error with near matches."""
    if metaedges == "all":
        return list(graph.metaedges)
    wanted = [metaedges] if isinstance(metaedges, str) else list(metaedges)
    for metaedge in wanted:
        if metaedge not in graph.metaedges:
            hint = near(metaedge, graph.metaedges) or list(graph.metaedges)
            raise InputError(f"{graph.name}: no metaedge {metaedge!r} with edges; the nearest are {hint}")
    refuse_repeats(graph.name, np.array(wanted, dtype=str), "metaedges")
    if not wanted:
        raise InputError(f"{graph.name}: no metaedge to predict; name some of {list(graph.metaedges)}, or all")
    return wanted
