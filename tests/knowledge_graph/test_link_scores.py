"""Scores of links: a list and a grid agree, also in half precision."""

from __future__ import annotations

import pytest
import torch

from torchcell.knowledge_graph.models.hgt_embedder.model import DistMult


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_grid_is_the_list_of_its_pairs_and_is_not_rounded(dtype):
    """Eight digits of bfloat16 would tie a hundred candidates in a few places."""
    torch.manual_seed(0)
    z_ND, decoder = torch.randn(12, 8).to(dtype), DistMult(8, 2, n_nodes=12)
    source, target = torch.arange(5), torch.arange(5, 12)
    pairs = torch.cartesian_prod(source, target)
    for code in (0, 1):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            grid = decoder.grid(z_ND[source], z_ND[target], code, source, target)
            links = decoder(z_ND[pairs[:, 0]], z_ND[pairs[:, 1]], torch.full((35,), code), *pairs.T)
        exact = decoder.grid(z_ND[source].float(), z_ND[target].float(), code, source, target)
        torch.testing.assert_close(grid, exact)
        torch.testing.assert_close(links, exact.flatten())
