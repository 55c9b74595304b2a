"""The encoder of gene sets, whatever its attention: cells apart, genes a set, checkpointing without effect."""

from __future__ import annotations

import pytest
import torch

from torchcell.cells.models.gene_set_transformer.attention import (
    ATTENTIONS,
    EncoderOptions,
    GeneSetEncoder,
    InducedAttention,
    seen_tokens,
)
from torchcell.io.errors import InputError

C, G, D = 3, 9, 32


def encoder(attention: str, **changes) -> GeneSetEncoder:
    torch.manual_seed(0)
    return GeneSetEncoder(EncoderOptions(D, 2, 2, attention=attention, points=4, **changes))


def seen(attention: str, neighbor_GK: torch.Tensor):
    return seen_tokens(neighbor_GK, torch.arange(G), 1) if attention == "neighbors" else None


def lists() -> torch.Tensor:
    return torch.randint(G, (G, 3), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_cells_do_not_see_each_other(attention):
    model, x = encoder(attention), torch.randn(C, 1 + G, D)
    alone = torch.cat([model(x[i : i + 1], seen(attention, lists())) for i in range(C)])
    torch.testing.assert_close(alone, model(x, seen(attention, lists())), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_genes_in_another_order_give_the_same_in_that_order(attention):
    model, x, order = encoder(attention), torch.randn(C, 1 + G, D), torch.randperm(G)
    moved = torch.cat([x[:, :1], x[:, 1 + order]], 1)
    place = order.argsort()
    there = model(moved, seen(attention, place[lists()][order]))
    here = model(x, seen(attention, lists()))
    torch.testing.assert_close(there[:, 1:], here[:, 1 + order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_checkpointing_changes_neither_values_nor_gradients(attention):
    found = []
    for checkpointing in (False, True):
        model = encoder(attention, gradient_checkpointing=checkpointing)
        torch.manual_seed(1)
        x = torch.randn(C, 1 + G, D, requires_grad=True)
        y = model(x, seen(attention, lists()))
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])))
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def test_full_and_sparse_attention_share_their_weights():
    encoder("neighbors").load_state_dict(encoder("full").state_dict())


def test_one_point_gives_every_token_the_same():
    torch.manual_seed(0)
    y = InducedAttention(D, 2, 1)(torch.randn(C, G, D))
    torch.testing.assert_close(y, y[:, :1].expand_as(y))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attention": "dense"}, r"model.encoder.attention='dense': choose one of \['full'"),
        ({"points": 0, "layers": -1}, "model.encoder.layers=-1, model.encoder.points=0: it must be layers at least 0"),
        ({"global_tokens": 0}, "model.encoder.global_tokens=0: .* global_tokens at least 1"),
        ({"dropout": 1.0}, "model.encoder.dropout=1.0: it is a share"),
        ({"heads": 4}, "model.encoder.dim=32, model.encoder.heads=4: .* at least 16"),
        ({"heads": 3, "dim": 64}, "model.encoder.heads=3: each head needs the same width"),
    ],
)
def test_options_that_can_not_be_are_refused_by_their_keys(change, said):
    with pytest.raises(InputError, match=said):
        EncoderOptions(**({"dim": D, "layers": 1, "heads": 2} | change))


def test_points_are_needed():
    with pytest.raises(InputError, match="at least one point"):
        InducedAttention(D, 2, 0)
