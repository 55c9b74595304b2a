"""The synthetic knowledge graph: Hetionet's counts, no edge twice, the same bytes for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.simulate_large import EDGES, NODES, synthetic_knowledge_graph

SCALE = 0.1


def test_the_counts_are_those_of_hetionet():
    assert (sum(NODES.values()), len(NODES)) == (47_031, 11)
    assert (sum(n for *_, n in EDGES.values()), len(EDGES)) == (2_250_197, 24)


@pytest.mark.mirror
def test_the_counts_are_those_of_the_table(mirror):
    rows = (mirror / "hetionet" / "metaedges.tsv").read_text().splitlines()[1:]
    counts = {row.split("\t")[1]: int(row.split("\t")[2]) for row in rows}
    assert counts == {name: n for name, (*_, n) in EDGES.items()}


def test_a_tenth_is_a_valid_record_with_a_tenth_of_everything():
    graph = synthetic_knowledge_graph(SCALE).validate()
    assert dict(zip(*np.unique(graph.node_type, return_counts=True), strict=True)) == {
        node_type: round(SCALE * n) for node_type, n in NODES.items()
    }
    assert dict(zip(*np.unique(graph.edge_type, return_counts=True), strict=True)) == {
        name: round(SCALE * n) for name, (*_, n) in EDGES.items()
    }
    _, degree = np.unique(graph.source_id[graph.edge_type == "GpBP"], return_counts=True)
    assert degree.max() > 5 * np.median(degree)  # a heavy tail


def test_same_seed_same_bytes_and_another_seed_others():
    first, again, other = (synthetic_knowledge_graph(SCALE, seed).sample_id for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_scale_too_small_for_the_edges_is_refused():
    with pytest.raises(InputError, match=r"at scale 0.02 \w+ has .* edges for .* pairs"):
        synthetic_knowledge_graph(0.02)
