"""The encoder: which scores come back and in which order, and that its ways of computing agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from torchcell.screen.models.cell_graph_transformer.model import CellEncoder, TransformerLayer

N, HEADS, WIDTH = 10, 2, 16
DIM = HEADS * WIDTH


def encoder(layers: int = 3, dropout: float = 0.0) -> CellEncoder:
    torch.manual_seed(0)
    made = CellEncoder([TransformerLayer(DIM, HEADS, dropout=dropout) for _ in range(layers)], DIM)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.double()


def genes() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(N, DIM, dtype=torch.float64, requires_grad=True)


def by_hand(made: CellEncoder, x_ND: Tensor) -> tuple[Tensor, dict[tuple[int, int], tuple[Tensor, ...]]]:
    """Tokens [1 + N, D], and queries, keys and log-sum-exp of every head."""
    x_TD, found = torch.cat([made.cls[None], x_ND]), {}
    for number, layer in enumerate(made.layers):
        x_TD, q, k, lse = layer(x_TD, [0, 1], [0, 1])
        found |= {(number, head): (q[head], k[head], lse[head]) for head in range(HEADS)}
    return made.norm(x_TD), found


@pytest.mark.parametrize(
    "shown",
    [[], [(1, 0)], [(2, 1), (0, 0), (2, 0)], [(0, 1), (0, 0), (1, 1), (2, 0)]],
    ids=["none", "one", "last first", "several of a layer"],
)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_scores_come_in_the_order_asked_for(shown, checkpointing):
    made, x_ND = encoder(), genes()
    made.gradient_checkpointing = checkpointing
    summed = shown[::-2]  # some, in another order
    cell = made(x_ND, shown, summed)
    tokens, found = by_hand(made, x_ND)
    torch.testing.assert_close(torch.cat([cell.cls_D[None], cell.gene_ND]), tokens, rtol=1e-12, atol=1e-12)
    assert len(cell.scores) == len(shown)
    for place, scores in zip(shown, cell.scores, strict=True):
        q, k, lse = found[place]
        torch.testing.assert_close(scores.q_TD, q, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(scores.k_TD, k, rtol=1e-12, atol=1e-12)
        assert (scores.lse_T is not None) == (place in summed)
        if scores.lse_T is not None:
            torch.testing.assert_close(scores.lse_T, lse, rtol=1e-12, atol=1e-12)


def test_gradient_checkpointing_changes_nothing_dropout_included():
    made, x_ND = encoder(dropout=0.3), genes()
    results = []
    for checkpointing in (False, True):
        made.gradient_checkpointing = checkpointing
        torch.manual_seed(2)
        cell = made(x_ND, [(1, 1), (0, 0)], [(1, 1)])
        scores = [each.q_TD.sin().sum() + each.k_TD.cos().sum() for each in cell.scores]
        loss = cell.cls_D.sum() + cell.gene_ND.square().sum() + sum(scores) + cell.scores[0].lse_T.sum()
        results.append((loss.detach(), torch.autograd.grad(loss, [x_ND, *made.parameters()])))
    (kept, kept_grads), (again, again_grads) = results
    assert torch.equal(kept, again)
    assert all(torch.equal(a, b) for a, b in zip(kept_grads, again_grads, strict=True))


def test_gradient_checkpointing_keeps_less():
    made, x_ND = encoder(), genes()
    sizes = []
    for checkpointing in (False, True):
        made.gradient_checkpointing, held = checkpointing, []
        own = {parameter.data_ptr() for parameter in made.parameters()}

        def keep(x: Tensor, held: list[int] = held, own: set[int] = own) -> Tensor:
            held.append(0 if x.data_ptr() in own else x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            made(x_ND)
        sizes.append(sum(held))
    assert sizes[1] < sizes[0] / 4


def test_another_order_of_genes_is_only_another_order():
    made, x_ND = encoder(), genes()
    order = torch.randperm(N)
    cell, moved = made(x_ND, [(1, 0)]), made(x_ND[order], [(1, 0)])
    tokens = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])
    torch.testing.assert_close(moved.cls_D, cell.cls_D, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(moved.gene_ND, cell.gene_ND[order], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(moved.scores[0].q_TD, cell.scores[0].q_TD[tokens], rtol=1e-11, atol=1e-11)


def test_without_layers_tokens_are_normalized_and_no_more():
    made, x_ND = encoder(layers=0), genes()
    cell = made(x_ND)
    torch.testing.assert_close(cell.gene_ND, made.norm(x_ND))
    torch.testing.assert_close(cell.cls_D, made.norm(made.cls))
    assert cell.scores == []
