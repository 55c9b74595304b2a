"""A layer against plain formulas in float64: free, shown, summed and confined heads, values and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from tests.screen.small_networks import N, network
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer.controls import HardMask, MaskedLayer
from torchcell.screen.models.cell_graph_transformer.model import TransformerLayer

HEADS, WIDTH = 3, 16
DIM = HEADS * WIDTH
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def a_layer(masked: Sequence[int] = (), dropout: float = 0.0) -> TransformerLayer:
    torch.manual_seed(0)
    graph = CellGraph([f"g{i}" for i in range(N)], {"r": sp.csr_matrix(network())})
    masks = {head: HardMask(graph, "r") for head in masked}
    layer = MaskedLayer(DIM, HEADS, dropout=dropout, masks=masks) if masks else TransformerLayer(DIM, HEADS, 2, dropout)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # norms and biases too
    return layer.double()


def tokens() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1 + N, DIM, dtype=torch.float64, requires_grad=True)


def allowed() -> Tensor:
    """Pairs that a confined head may see: CLS all, a gene CLS, itself and its neighbors."""
    pairs = torch.ones(1 + N, 1 + N, dtype=torch.bool)
    pairs[1:, 1:] = torch.from_numpy(network() != 0) | torch.eye(N).bool()
    return pairs


def normed(norm: torch.nn.LayerNorm, x_TD: Tensor) -> Tensor:
    centered = x_TD - x_TD.mean(1, keepdim=True)
    return centered / (centered.square().mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def dense(layer: TransformerLayer, x_TD: Tensor, masked: Sequence[int] = ()) -> tuple[Tensor, ...]:
    """The new tokens, and queries, keys and log-sum-exp of all heads."""
    n_TD = normed(layer.attention_norm, x_TD)
    w_3DD = layer.query_key_value.weight.view(3, DIM, DIM)
    seen, queries, keys, lses = [], [], [], []
    for head in range(HEADS):
        rows = slice(head * WIDTH, (head + 1) * WIDTH)
        q, k, v = (n_TD @ w_DD[rows].T for w_DD in w_3DD)
        score_TT = q @ k.T / 4
        if head in masked:
            score_TT = score_TT.masked_fill(~allowed(), -torch.inf)
        seen.append(score_TT.softmax(1) @ v)
        queries.append(q)
        keys.append(k)
        lses.append(score_TT.logsumexp(1))
    x_TD = x_TD + torch.cat(seen, 1) @ layer.output.weight.T + layer.output.bias
    first, _, second = layer.network
    inner = normed(layer.network_norm, x_TD) @ first.weight.T + first.bias
    inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
    return x_TD + inner @ second.weight.T + second.bias, torch.stack(queries), torch.stack(keys), torch.stack(lses)


@pytest.mark.parametrize("masked", [(), (1,), (2, 0), (0, 1, 2)], ids="confined={}".format)
@pytest.mark.parametrize(
    ("shown", "summed"),
    [((), ()), ((2, 0), ()), ((1,), (1,)), ((2, 1, 0), (1, 2))],
    ids=["free", "shown", "one", "all"],
)
def test_equals_the_plain_formulas_in_value_and_gradient(masked, shown, summed):
    layer, x_TD = a_layer(masked), tokens()
    summed = [head for head in summed if head not in masked]
    ours = layer(x_TD, shown, summed)
    y, q, k, lse = dense(layer, x_TD, masked)
    wanted = y, q[list(shown)], k[list(shown)], lse[list(summed)]
    generator = torch.Generator().manual_seed(2)
    loss = [torch.zeros((), dtype=torch.float64) for _ in range(2)]
    for mine, truth in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, truth, **TIGHT)
        weight = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
        loss = [total + (weight * each).sum() for total, each in zip(loss, (mine, truth), strict=True)]
    inputs = [x_TD, *layer.parameters()]
    for mine, truth in zip(*(torch.autograd.grad(total, inputs) for total in loss), strict=True):
        torch.testing.assert_close(mine, truth, **TIGHT)


def test_showing_and_summing_heads_changes_no_token():
    layer, x_TD = a_layer(), tokens()
    torch.testing.assert_close(layer(x_TD, [1, 0], [0])[0], layer(x_TD)[0], rtol=1e-13, atol=1e-13)


def test_another_order_of_tokens_is_only_another_order():
    layer, x_TD = a_layer(), tokens()
    order = torch.randperm(1 + N)
    y_TD, q_KTd, k_KTd, lse_JT = layer(x_TD, [2, 0], [2])
    moved = layer(x_TD[order], [2, 0], [2])
    wanted = y_TD[order], q_KTd[:, order], k_KTd[:, order], lse_JT[:, order]
    for mine, truth in zip(moved, wanted, strict=True):
        torch.testing.assert_close(mine, truth, **TIGHT)


def test_dropout_is_for_training_alone():
    layer, x_TD = a_layer(dropout=0.5), tokens()
    assert not torch.allclose(layer(x_TD)[0], layer(x_TD)[0])
    layer.eval()
    torch.testing.assert_close(layer(x_TD)[0], dense(layer, x_TD)[0], **TIGHT)


@pytest.mark.parametrize("sizes", [(32, 4), (48, 4), (50, 3)], ids="{0[0]} over {0[1]}".format)
def test_heads_that_are_narrow_or_uneven_are_refused(sizes):
    features, heads = sizes
    with pytest.raises(InputError, match=f"width {features} with {heads} heads: .* at least 16"):
        TransformerLayer(features, heads)


def test_the_repr_tells_width_and_heads():
    assert "48, heads=3" in repr(a_layer())
