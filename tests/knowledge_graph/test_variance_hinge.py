"""The hinge on spread, in closed form."""

from __future__ import annotations

import torch

from torchcell.knowledge_graph.models.hgt_embedder.losses import variance_hinge


def test_is_the_lacking_spread_of_each_type():
    flat = torch.ones(4, 3)
    wide = torch.tensor([[-10.0, 0.5, 1.0], [10.0, -0.5, 1.0]])  # sd 14.1, .707 and 0
    torch.testing.assert_close(variance_hinge(flat, [0, 4]), torch.tensor(1 - 1e-4))
    expected = (1 - 1e-4 + (0 + 1 - 0.5**0.5 + 1 - 1e-4) / 3) / 2
    torch.testing.assert_close(variance_hinge(torch.cat([flat, wide]), [0, 4, 6]), torch.tensor(expected))
    torch.testing.assert_close(variance_hinge(wide[:, :1], [0, 2]), torch.tensor(0.0))


def test_a_type_of_one_node_has_no_spread_to_lack():
    z = torch.randn(3, 2, requires_grad=True)
    assert float(variance_hinge(z, [0, 1, 2, 2, 3])) == 0
    variance_hinge(z, [0, 1, 2, 2, 3]).backward()


def test_its_slope_is_finite_where_a_type_is_one_point():
    z = torch.ones(5, 2, requires_grad=True)
    variance_hinge(z, [0, 5]).backward()
    assert torch.isfinite(z.grad).all()
