"""Shared negatives: who is drawn, which pairs are known, and numbers of edges."""

from __future__ import annotations

import torch

from torchcell.knowledge_graph.models.hgt_embedder.sampling import LinkNegatives

N = 20


def sample_links(matched=0.5) -> LinkNegatives:
    """Nodes 0 to 7 of one node type, 8 to 19 of another; edge type 0 joins them, 1 the first node type, 2 has no edge."""
    crossing = torch.tensor([0, 0, 0, 5]), torch.tensor([8, 9, 11, 8])
    within = torch.tensor([1, 2]), torch.tensor([4, 3])
    none = torch.zeros(2, 0, dtype=torch.int64)
    ranges = [((0, 8), (8, 20)), ((0, 8), (0, 8)), ((8, 20), (0, 8))]
    return LinkNegatives([crossing, within, (none[0], none[1])], ranges, [1], N, matched)


def test_matched_draws_follow_the_degree_and_uniform_ones_the_type():
    torch.manual_seed(0)
    matched, uniform = (sample_links(share).draw(0, 0, 4_000) for share in (1.0, 0.0))
    assert set(matched.tolist()) == {0, 5}
    assert abs(float((matched == 0).double().mean()) - 0.75) < 0.03
    counts = torch.bincount(uniform, minlength=8)
    assert len(counts) == 8
    assert counts.min() > 400
    half = sample_links(0.5).draw(0, 1, 10)
    assert len(half) == 10
    assert set(half[:5].tolist()) <= {8, 9, 11}
    assert half.min() >= 8


def test_either_end_of_a_symmetric_edge_type_has_the_whole_degree():
    assert set(sample_links(1.0).draw(1, 0, 500).tolist()) == {1, 2, 3, 4}


def test_a_edge_type_without_edges_draws_from_the_type():
    drawn = sample_links(1.0).draw(2, 0, 300)
    assert set(drawn.tolist()) == set(range(8, 20))
    assert not sample_links().known(2, torch.tensor([9]), torch.tensor([1])).any()


def test_known_pairs_are_exactly_the_edges_and_a_node_with_itself():
    links = sample_links()
    row, column = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
    for code, both in ((0, False), (1, True)):
        source, target = links.ends(code, torch.arange(links.n_edges[code]))
        true = torch.eye(N, dtype=torch.bool)
        true[source, target] = True
        if both:
            true[target, source] = True
        assert torch.equal(links.known(code, row, column), true)
        assert torch.equal(links.edge_number(code, source, target), torch.arange(links.n_edges[code]))
    source, target = links.ends(1, torch.arange(2))
    assert torch.equal(links.edge_number(1, target, source), torch.arange(2))
    assert links.edge_number(0, torch.tensor([8]), torch.tensor([0])).tolist() == [-1]


def test_the_seed_decides_the_draw():
    links, drawn = sample_links(), []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(links.draw(0, 1, 50))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
