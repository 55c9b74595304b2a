"""Attention over lists of neighbors against dense attention under the same mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.nn.largest_tensor import LargestTensor
from torchcell.cells.models.gene_set_transformer.attention import (
    NUMBERS,
    TokenAttention,
    neighbor_attention,
    seen_tokens,
)
from torchcell.io.errors import InputError
from torchcell.nn.sparse import STRATEGIES

C, H, D, G, K = 2, 3, 16, 11, 4


def lists(seed: int = 0) -> Tensor:
    """Lists with pads, a gene that names itself, one named twice, one without any."""
    draw = torch.Generator().manual_seed(seed)
    neighbor_GK = torch.randint(-1, G, (G, K), generator=draw)
    neighbor_GK[0, 0], neighbor_GK[1, :2], neighbor_GK[2] = 0, 5, -1
    return neighbor_GK


def mask(neighbor_GK: Tensor, active_A: Tensor, n_global: int) -> Tensor:
    """Pairs of tokens [T, T] that may see each other, written out by loops."""
    place = {int(gene): n_global + i for i, gene in enumerate(active_A)}
    allowed = torch.zeros(n_global + len(active_A), n_global + len(active_A), dtype=torch.bool)
    allowed[:n_global] = allowed[:, :n_global] = True
    for gene, row in place.items():
        for other in [gene, *neighbor_GK[gene].tolist()]:
            if other in place:
                allowed[row, place[other]] = True
    return allowed


@pytest.mark.parametrize(
    ("way", "edges", "numbers", "dtype", "off"),
    [
        ("sparse", 262_144, 2**20, torch.float32, 1e-5),
        ("sparse", 20, 1, torch.float64, 1e-10),
        ("gather", 20, 1, torch.float64, 1e-10),
    ],
)
@pytest.mark.parametrize("n_global", [0, 1, 3])
@pytest.mark.parametrize("active", [list(range(G)), [1, 2, 5, 9], [7]], ids=["all", "four", "one"])
def test_equals_dense_attention_under_the_same_mask_in_value_and_gradient(
    n_global, active, dtype, off, way, edges, numbers, monkeypatch
):
    """In one go, and cell by cell a few edges at a time."""
    monkeypatch.setattr(STRATEGIES[way], "edges", edges)
    monkeypatch.setitem(NUMBERS, way, numbers)
    active_A = torch.tensor(active)
    torch.manual_seed(0)
    tensors = [torch.randn(C, H, n_global + len(active), D, dtype=dtype, requires_grad=True) for _ in range(3)]
    q, k, v = tensors
    qkv = torch.stack(tensors, 2).permute(0, 3, 2, 1, 4)
    ours = neighbor_attention(qkv, seen_tokens(lists(), active_A, n_global), way).transpose(1, 2)
    scores = (q @ k.mT / D**0.5).masked_fill(~mask(lists(), active_A, n_global), -torch.inf)
    wanted = scores.softmax(-1) @ v
    torch.testing.assert_close(ours, wanted, rtol=off, atol=off)
    weight = torch.randn_like(wanted)
    mine, reference = (torch.autograd.grad((each * weight).sum(), tensors) for each in (ours, wanted))
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=off, atol=off)


def test_lists_of_everything_give_full_attention():
    torch.manual_seed(0)
    layer, x = TokenAttention(48, 3), torch.randn(C, 2 + G, 48)
    everything = torch.arange(G).expand(G, G)
    torch.testing.assert_close(layer(x, seen_tokens(everything, torch.arange(G), 2)), layer(x), atol=1e-5, rtol=1e-5)


def test_the_order_of_a_list_changes_nothing():
    torch.manual_seed(0)
    layer, x, active_A = TokenAttention(48, 3), torch.randn(C, 2 + G, 48), torch.arange(G)
    a, b = (layer(x, seen_tokens(each, active_A, 2)) for each in (lists(), lists().flip(1)))
    torch.testing.assert_close(a, b)


def test_nothing_of_size_genes_times_genes_exists():
    n, layer = 600, TokenAttention(32, 2)
    seen, x = seen_tokens(torch.randint(n, (n, K)), torch.arange(n), 2), torch.randn(1, 2 + n, 32, requires_grad=True)
    with LargestTensor() as largest:
        layer(x, seen).sum().backward()
    assert largest.numel < 0.2 * n * n


@pytest.mark.parametrize(("features", "heads"), [(48, 4), (50, 3), (32, 0)])
def test_narrow_or_uneven_heads_are_refused(features, heads):
    with pytest.raises(InputError, match="at least 16"):
        TokenAttention(features, heads)


def test_bfloat16_agrees_roughly():
    torch.manual_seed(0)
    layer, x, seen = TokenAttention(48, 3), torch.randn(C, 2 + G, 48), seen_tokens(lists(), torch.arange(G), 2)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x, seen)
    torch.testing.assert_close(half.float(), layer(x, seen), atol=3e-2, rtol=3e-2)
