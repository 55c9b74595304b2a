"""The pairwise merge: shares, and what a pair can say that neither relation can."""

from __future__ import annotations

import torch

from torchcell.screen.models.perturbed_cell_gnn.layers import PairwiseMerge


def test_repr_shape_and_shares():
    merge = PairwiseMerge(4, 3)
    assert repr(merge).startswith("PairwiseMerge(4, 3)")
    assert merge(torch.randn(4, 6, 3)).shape == (6, 3)
    assert len(merge.pairs) == 6
    torch.testing.assert_close(merge.share(), torch.full((6,), 1 / 6))


def test_a_single_relation_is_paired_with_itself():
    assert PairwiseMerge(1, 3)(torch.randn(1, 5, 3)).shape == (5, 3)


def test_it_learns_the_product_of_two_relations_which_no_sum_can_hold():
    torch.manual_seed(0)
    z = torch.randn(2, 256, 16).sign()
    wanted = (z[0, :, :1] * z[1, :, :1]).expand(-1, 16)
    merge = PairwiseMerge(2, 16)
    optimizer = torch.optim.Adam(merge.parameters(), lr=0.03)
    for _ in range(400):
        loss = (merge(z) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.1
