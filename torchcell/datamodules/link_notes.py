"""What ``predict`` says of pairs of nodes whose like training never met."""

from __future__ import annotations

import numpy as np

from torchcell.datamodules.prediction_notes import (
    Notes,
    by_owner,
    unless_known,
)
from torchcell.datamodules.spec import Spec


def link_notes(metaedge: np.ndarray, source: np.ndarray, target: np.ndarray, spec: Spec) -> Notes:
    """Nodes without an edge in the graph that the model reads, and edge types that it was not trained to predict.

    Args:
        metaedge: Edge type of each candidate [n].
        source: Ids of the sources [n].
        target: Ids of the targets [n].
        spec: Of a model of links.
    """
    graph, n = spec.extras["knowledge_graph"], len(metaedge)
    ends = [end.numpy() for pair in graph["edges"].values() for end in pair]
    connected = np.array(graph["node_id"], dtype=str)[np.unique(np.concatenate(ends)).astype(np.int64)]
    names, owner = np.concatenate([source, target]), np.tile(np.arange(n), 2)
    new = ~np.isin(names, connected)
    return {
        "node without an edge": by_owner("no edge in the graph of training:", names[new], owner[new], n),
        "edge type not trained": unless_known("not trained to predict", metaedge, spec.extras["supervised"]),
    }
