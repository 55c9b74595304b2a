"""Splits of a knowledge graph: edges of each edge type, with drawn negatives in the same proportions."""

from __future__ import annotations

import numpy as np

from torchcell.core.split import SplitMethods, assign_folds, own_clusters
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.record import NEGATIVES, Links


def edges(record: Links, n_folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The edges of each edge type at random, both directions of one together; negatives in the same shares.

    A negative goes where the edge of its rank goes: negatives are drawn at random, so that is random too.
    """
    part, twins = np.empty(len(record), dtype="<U6"), record.duplicate_keys()
    for edge_type in record.supervised:
        of_edge_type = record.edge_type == edge_type
        positive = np.flatnonzero(of_edge_type & record.positive)
        if not len(positive):
            raise InputError(f"{record.name}: no edge of {edge_type} to divide into train, val and test")
        part_of = assign_folds(twins[positive], n_folds, fold, seed)
        part[positive] = [part_of[key] for key in twins[positive].tolist()]
        column = record.outputs.index(f"{edge_type}_{NEGATIVES[0]}")
        for t in range(column, column + len(NEGATIVES)):
            negative = np.flatnonzero(record.label[:, t] == 0)
            part[negative] = part[positive][np.arange(len(negative)) % len(positive)]
    return part, record.node_id[record.source_index], "source node"


SPLITS = SplitMethods("a knowledge graph", own_clusters, {"edges": edges})
