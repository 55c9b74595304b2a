"""Ranks while a model trains equal those of the evaluator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.knowledge_graph.test_link_negatives import sample_links
from torchcell.knowledge_graph.models.hgt_embedder.model import DistMult
from torchcell.knowledge_graph.models.hgt_embedder.ranking import link_ranks


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("code", [0, 1])
def test_ranks_equal_a_naive_count_with_ties_and_filtering(code, ties):
    """Edge type 0 joins nodes 0 to 7 and 8 to 19; edge type 1 has no direction, among the nodes 0 to 7."""
    torch.manual_seed(2)
    known, decoder = sample_links(), DistMult(8, 3, n_nodes=20, symmetric=[1])
    z_ND = torch.randint(0, 2, (20, 8)).float() if ties else torch.randn(20, 8)
    if ties:
        torch.nn.init.ones_(decoder.weight)
    (first, last), (other_first, other_last) = known.ranges[code]
    given = {(first, other_last - 1), (first + 3, other_last - 1), (first, other_last - 2), (last - 2, other_first)}
    pairs = torch.tensor(sorted(given))
    ranks = link_ranks(z_ND, decoder, known, code, pairs[:, 0], pairs[:, 1])

    def score(i, j):
        i, j = torch.tensor([i]), torch.tensor([j])
        return float(decoder(z_ND[i], z_ND[j], torch.tensor([code]), i, j).detach())

    def true(i, j):
        listed = {(i, j), (j, i)} & given if code == 1 else {(i, j)} & given
        return bool(listed) or bool(known.known(code, torch.tensor([i]), torch.tensor([j])))

    for row, (i, j) in enumerate(pairs.tolist()):
        tails = [score(i, k) for k in range(other_first, other_last) if k != j and not true(i, k)]
        heads = [score(k, j) for k in range(first, last) if k != i and not true(k, j)]
        for place, others in enumerate((np.array(tails), np.array(heads))):
            near = np.isclose(others, score(i, j), atol=1e-6)
            expected = 1 + (others[~near] > score(i, j)).sum() + near.sum() / 2
            assert ranks[row, place] == expected
