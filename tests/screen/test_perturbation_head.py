"""The head against the form that writes out one value a set and gene, in value and gradient."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from torchcell.screen.models.cell_graph_transformer import heads as module
from torchcell.screen.models.cell_graph_transformer.heads import POOLINGS
from torchcell.screen.models.cell_graph_transformer.model import PerturbationHead

N, WIDTH, KINDS = 11, 8, 3
PTR = torch.tensor([0, 2, 3, 7, 9])
GENE = torch.tensor([3, 10, 0, 5, 1, 5, 2, 9, 0])  # the third set holds gene 5 twice
KIND = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1])
LEVEL = torch.tensor([torch.nan, 0.5, 2.0, torch.nan, 1.5, -1.0, torch.nan, 0.3, 0.7], dtype=torch.float64)


def head(n_kinds: int = KINDS, **changes: object) -> PerturbationHead:
    """A head whose weights are all far from zero."""
    torch.manual_seed(0)
    layer = PerturbationHead(WIDTH, n_kinds, heads=2, **changes).double()  # type: ignore[arg-type]
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.7)
    return layer


def genes() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(N, WIDTH, dtype=torch.float64, requires_grad=True)


def batch(n_kinds: int = KINDS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return GENE, KIND.clamp(max=n_kinds - 1), LEVEL, PTR


def phi(layer: PerturbationHead, h: Tensor, state: Tensor) -> Tensor:
    return layer.outer(nn.functional.gelu(layer.inner(layer.norm(h)) + state))


def naive(layer: PerturbationHead, h: Tensor, gene: Tensor, kind: Tensor, level: Tensor, ptr: Tensor) -> Tensor:
    """One set after the other; a gene that is no member is present, one that is twice counts once a row."""
    rows = []
    for a, b in pairwise(ptr.tolist()):
        members, kinds, levels = gene[a:b], kind[a:b], level[a:b].nan_to_num(0.0)
        x = h[members] if layer.kind_query is None else h[members] + layer.kind_query(kinds)
        query = layer.pooling(x, torch.tensor([0, b - a]))[0]
        beta = (query @ (layer.query.weight.T @ h.T) / math.sqrt(WIDTH)).softmax(0)
        value = phi(layer, h, layer.present)  # [N, D], and below one for each member
        row = beta @ value
        for i, k, dose in zip(members.tolist(), kinds.tolist(), levels, strict=True):
            state = layer.kind_state.weight[k]
            if layer.level_state is not None:
                state = state + layer.level_state.weight[k] * dose
            row = row + beta[i] * (phi(layer, h[i], state) - value[i])
        rows.append(row)
    return torch.stack(rows)


def same(ours: Tensor, wanted: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(wanted)
    mine, reference = (torch.autograd.grad((each * seed).sum(), leaves) for each in (ours, wanted))
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("n_kinds", "levels"), [(1, False), (KINDS, False), (KINDS, True)])
def test_equals_the_naive_form_in_value_and_gradient(pooling, n_kinds, levels):
    layer, h = head(n_kinds, pooling=pooling, levels=levels, hidden=5), genes()
    leaves = [h, *layer.parameters()]
    same(layer(h, *batch(n_kinds)), naive(layer, h, *batch(n_kinds)), leaves)


def test_a_set_without_repeats_is_the_sum_over_all_genes_of_their_own_state():
    layer, h = head(), genes()
    gene, kind = torch.tensor([4, 7]), torch.tensor([2, 0])
    state = layer.present.repeat(N, 1)
    state[gene] = layer.kind_state.weight[kind]
    ptr = torch.tensor([0, 2])
    wanted = layer.attention(h, gene, kind, ptr) @ phi(layer, h, state)
    ours = layer(h, gene, kind, torch.full((2,), torch.nan, dtype=torch.float64), ptr)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scores", [1, N, 3 * N], ids="scores={}".format)
def test_runs_equal_the_whole_in_value_and_gradient(monkeypatch, scores):
    layer, h = head(levels=True), genes()
    whole = layer(h, *batch())
    seed, leaves = torch.randn_like(whole), [h, *layer.parameters()]
    wanted = torch.autograd.grad((whole * seed).sum(), leaves)
    monkeypatch.setattr(module, "SCORES", scores)
    runs = layer(h, *batch())
    torch.testing.assert_close(runs, whole, rtol=1e-13, atol=1e-13)
    for a, b in zip(torch.autograd.grad((runs * seed).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_no_score_of_a_set_and_gene_is_kept_for_the_backward_pass():
    layer, h = head(), genes()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        n_sets = 200
        gene = torch.arange(2 * n_sets) % N
        layer(h, gene, gene % KINDS, torch.full(gene.shape, torch.nan).double(), torch.arange(n_sets + 1) * 2)
    assert max(kept) <= 2 * n_sets * WIDTH < n_sets * N * WIDTH
    assert n_sets * N not in kept


def test_order_of_members_changes_nothing():
    layer, h = head(pooling="hyper_sagnn", levels=True), genes()
    order = torch.tensor([1, 0, 2, 6, 4, 3, 5, 8, 7])  # within each set
    torch.testing.assert_close(
        layer(h, GENE, KIND, LEVEL, PTR), layer(h, GENE[order], KIND[order], LEVEL[order], PTR), rtol=1e-12, atol=1e-12
    )


def test_a_set_alone_gives_its_row_of_the_batch():
    layer, h = head(pooling="hyper_sagnn"), genes()
    rows = [layer(h, GENE[a:b], KIND[a:b], LEVEL[a:b], torch.tensor([0, b - a])) for a, b in pairwise(PTR.tolist())]
    torch.testing.assert_close(torch.cat(rows), layer(h, *batch()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n_kinds", "levels"), [(1, False), (1, True), (KINDS, False), (KINDS, True)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_gets_a_gradient(n_kinds, levels, pooling):
    layer = head(n_kinds, levels=levels, pooling=pooling)
    layer(genes(), *batch(n_kinds)).square().sum().backward()
    assert not [name for name, weight in layer.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_levels_are_read_only_on_request_and_nan_counts_as_zero():
    h, (gene, kind, level, ptr) = genes(), batch()
    deaf, hears = head(), head(levels=True)
    assert torch.equal(deaf(h, gene, kind, level, ptr), deaf(h, gene, kind, 2 * level, ptr))
    assert not torch.allclose(hears(h, gene, kind, level, ptr), hears(h, gene, kind, 2 * level, ptr))
    assert torch.equal(hears(h, gene, kind, level, ptr), hears(h, gene, kind, level.nan_to_num(0.0), ptr))


def test_attention_is_the_softmax_that_the_head_uses():
    layer, h = head(), genes()
    beta = layer.attention(h, GENE, KIND, PTR)
    torch.testing.assert_close(beta.sum(1), torch.ones(len(PTR) - 1).double())
    torch.manual_seed(2)
    # With all states alike phi depends on the gene alone, and the head is one product with beta.
    layer.kind_state.weight.data[:] = layer.present.data
    torch.testing.assert_close(layer(h, *batch()), beta @ phi(layer, h, layer.present), rtol=1e-12, atol=1e-12)


def test_a_fresh_head_looks_at_the_members_first():
    torch.manual_seed(0)
    layer, h = PerturbationHead(64, 1), torch.randn(500, 64)
    gene, ptr = torch.tensor([3, 40, 77]), torch.tensor([0, 2, 3])
    beta = layer.attention(h, gene, torch.zeros(3, dtype=torch.int64), ptr)
    assert set(beta[0].topk(2).indices.tolist()) == {3, 40}
    assert beta[1].argmax() == 77


def test_large_scores_do_not_overflow():
    layer, h = head(), genes()
    layer.query.weight.data *= 1e4
    out = layer(h, *batch())
    torch.testing.assert_close(out, naive(layer, h, *batch()), rtol=1e-9, atol=1e-9)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), [h, *layer.parameters()]))


def test_scores_far_below_the_largest_count_as_nothing():
    layer, h = head(), genes()
    layer.query.weight.data *= 100  # most shares are below e^-60, some are in between
    share = layer.attention(h, GENE, KIND, PTR)
    assert (share < 1e-26).any()
    assert ((share > 1e-20) & (share < 1e-3)).any()
    arguments = [h, *layer.parameters()]
    ours, truth = layer(h, *batch()), naive(layer, h, *batch())
    torch.testing.assert_close(ours, truth, rtol=1e-10, atol=1e-12)
    for mine, other in zip(
        *(torch.autograd.grad(out.square().sum(), arguments, allow_unused=True) for out in (ours, truth)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


def test_mixed_precision_stays_near_full_precision():
    torch.manual_seed(0)
    layer, h = PerturbationHead(WIDTH, KINDS, levels=True), genes().detach().float()
    arguments = GENE, KIND, LEVEL.float(), PTR
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(h, *arguments)
        half.float().sum().backward()
    torch.testing.assert_close(half.float(), layer(h, *arguments), rtol=0.05, atol=0.05)


def test_repr_and_shape():
    layer = PerturbationHead(WIDTH, KINDS, hidden=5)
    assert f"{WIDTH}, n_kinds=3, hidden=5, levels=False" in repr(layer)
    assert layer(torch.randn(N, WIDTH), GENE, KIND, LEVEL.float(), PTR).shape == (4, WIDTH)
