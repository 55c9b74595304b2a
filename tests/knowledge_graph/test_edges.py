"""The split of candidate edges: each edge type in the same shares, and its negatives too."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.simulate import simulated_links
from torchcell.knowledge_graph.splits import SPLITS


@pytest.mark.parametrize("per_positive", [1, 2])
def test_every_part_has_equal_shares_of_the_edges_and_of_each_type_of_negatives(per_positive: int) -> None:
    links = simulated_links(["CtD", "GiG"], negatives_per_positive=per_positive)
    split = SPLITS.make(links, "edges", n_folds=10)
    assert split.key == "source node"
    assert split.group.tolist() == links.node_id[links.source_index].tolist()
    for edge_type in links.supervised:
        own = links.edge_type == edge_type
        edges, column = own & links.positive, links.outputs.index(f"{edge_type}_matched")
        for part, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
            n = int((split.part[edges] == part).sum())
            assert abs(n - share * edges.sum()) <= 2
            for t in (column, column + 1):
                assert (split.part[links.label[:, t] == 0] == part).sum() == per_positive * n


def test_negatives_of_a_part_are_no_special_ones_and_each_edge_is_tested_once() -> None:
    links = simulated_links("CtD")
    tested = np.zeros(len(links), dtype=int)
    for fold in range(5):
        tested += SPLITS.make(links, "edges", n_folds=5, fold=fold).part == "test"
    assert (tested == 1).all()
    other = SPLITS.make(links, "edges", n_folds=5, seed=1)
    assert other.hash != SPLITS.make(links, "edges", n_folds=5).hash


def test_a_method_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match="no split method 'cold_cell' for a knowledge graph; .*edges"):
        SPLITS.make(simulated_links(["CtD"]), "cold_cell")
