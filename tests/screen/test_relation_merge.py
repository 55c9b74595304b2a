"""The merge of channels: a convex combination per gene."""

from __future__ import annotations

import torch

from torchcell.screen.models.common import RelationMerge


def test_repr_and_shape():
    assert repr(RelationMerge(3, 4)) == "RelationMerge(3, 4)"
    assert RelationMerge(3, 4)(torch.randn(3, 5, 4)).shape == (5, 4)


def test_starts_as_the_mean_over_channels():
    z = torch.randn(3, 5, 4)
    torch.testing.assert_close(RelationMerge(3, 4)(z), z.mean(0))


def test_equals_a_softmax_over_channels_gene_by_gene():
    merge, z = RelationMerge(3, 4).double(), torch.randn(3, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        merge.weight.normal_()
        merge.bias.normal_()
    for gene in range(5):
        alpha = torch.stack([z[c, gene] @ merge.weight[c] + merge.bias[c] for c in range(3)]).softmax(0)
        torch.testing.assert_close(merge(z)[gene], alpha @ z[:, gene])
        torch.testing.assert_close(merge.share(z)[:, gene], alpha)


def test_a_channel_of_large_bias_takes_all():
    merge, z = RelationMerge(2, 4), torch.randn(2, 5, 4)
    with torch.no_grad():
        merge.bias[1] = 100.0
    torch.testing.assert_close(merge(z), z[1])
