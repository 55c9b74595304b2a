"""Scores of links: a list and a grid agree, and metapaths add to the edge types that have a table."""

from __future__ import annotations

import pytest
import torch

from torchcell.knowledge_graph.models.hgt_embedder.metapaths import MetapathTable
from torchcell.knowledge_graph.models.hgt_embedder.model import DistMult, LinkScores


@pytest.mark.parametrize("code", [0, 1])
def test_a_grid_is_the_list_of_its_pairs_and_metapaths_are_added_where_there_are_some(code):
    torch.manual_seed(0)
    z_ND, decoder = torch.randn(12, 8), DistMult(8, 2, n_nodes=12)
    table = MetapathTable(torch.randn(5, 7), first_source=0, first_target=5)
    scores, source, target = LinkScores(decoder, {0: table}, decoder.weight), torch.arange(5), torch.arange(5, 12)
    grid = scores.grid(z_ND[source], z_ND[target], code, source, target)
    pairs = torch.cartesian_prod(source, target)
    ends = z_ND[pairs[:, 0]], z_ND[pairs[:, 1]], torch.full((35,), code), pairs[:, 0], pairs[:, 1]
    torch.testing.assert_close(scores(*ends), grid.flatten())
    torch.testing.assert_close(scores(*ends) - decoder(*ends), (1 - code) * table.score_AB.flatten())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_round_log_odds(dtype):
    """Eight digits of bfloat16 would tie a hundred candidates in a few places; adding metapaths to them once failed."""
    torch.manual_seed(0)
    z_ND, decoder = torch.randn(12, 8).to(dtype), DistMult(8, 1, n_nodes=12)
    table = MetapathTable(torch.randn(5, 7).to(dtype), first_source=0, first_target=5)
    scores, source, target = LinkScores(decoder, {0: table}, decoder.weight), torch.arange(5), torch.arange(5, 12)
    with torch.autocast("cpu", dtype):
        grid = scores.grid(z_ND[source], z_ND[target], 0, source, target)
        pairs = torch.cartesian_prod(source, target)
        links = scores(z_ND[pairs[:, 0]], z_ND[pairs[:, 1]], torch.zeros(35, dtype=torch.int64), *pairs.T)
    exact = decoder.grid(z_ND[source].float(), z_ND[target].float(), 0, source, target) + table.score_AB.float()
    torch.testing.assert_close(grid, exact)
    torch.testing.assert_close(links, exact.flatten())


def test_without_a_decoder_metapaths_alone_count():
    table, weight, at = MetapathTable(torch.randn(2, 2), 0, 2), torch.zeros(1), torch.tensor([0, 1])
    alone = LinkScores(None, {1: table}, weight)
    z_ND = torch.randn(4, 3)
    torch.testing.assert_close(alone(z_ND[:2], z_ND[2:], torch.tensor([1, 0]), at, at + 2)[0], table.score_AB[0, 0])
    assert alone(z_ND[:2], z_ND[2:], torch.tensor([1, 0]), at, at + 2)[1] == 0
    assert torch.equal(alone.grid(z_ND[:2], z_ND[2:], 1, at, at + 2), table.score_AB)
