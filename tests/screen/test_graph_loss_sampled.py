"""The log-sum-exp from neighbors and a sample: against the weighted sum written out, and right on average."""

from __future__ import annotations

import pytest
import torch

from tests.screen.small_networks import TIGHT, WIDTH, N, assert_same, cell, edges, network, tensors
from torchcell.screen.models.cell_graph_transformer import graph_loss as module
from torchcell.screen.models.cell_graph_transformer.graph_loss import GraphLoss, GraphTarget, sampled_log_sum_exp


@pytest.mark.parametrize("chunk", [(1, 1), (3, 100), (100, 3), (100, 100)], ids="rows, edges={}".format)
@pytest.mark.parametrize("sample", [[0], [1, 4, 8, 9], list(range(N))], ids=["one", "some", "all"])
def test_equals_the_weighted_sum(monkeypatch, chunk, sample):
    monkeypatch.setattr(module, "ROWS", chunk[0])
    monkeypatch.setattr(module, "EDGES", chunk[1])
    matrix = network()
    everywhere = torch.ones(N, dtype=torch.bool)
    target, (weight, _) = GraphTarget(cell(matrix), "r", everywhere), edges(matrix, everywhere)
    q, k, _ = tensors(N, WIDTH)
    row_S, column_M = target.row_R[[0, 4, 2, 7]], torch.tensor(sample)
    ours = sampled_log_sum_exp(target, q[row_S], k, row_S, column_M, 0.5)
    near = weight[row_S] > 0
    drawn = torch.zeros(N, dtype=torch.bool)
    drawn[column_M] = True
    left = (drawn & ~near).sum(1, keepdim=True)
    factor = near + drawn * ~near * (~near).sum(1, keepdim=True) / left.clamp(min=1)
    wanted = (factor * (0.5 * q[row_S] @ k.T).exp()).sum(1).log()
    torch.testing.assert_close(ours, wanted, **TIGHT)
    slope = torch.tensor([1.0, -2, 3, 0.5], dtype=torch.float64)
    assert_same((slope * ours).sum(), (slope * wanted).sum(), (q, k))


def test_the_sum_is_right_on_average():
    matrix = network()
    target = GraphTarget(cell(matrix), "r")
    q, k, _ = tensors(N, WIDTH)
    row_S = target.row_R[:4]
    with torch.no_grad():
        exact = (0.5 * q[row_S] @ k[target.column_C].T).exp().sum(1)
        torch.manual_seed(0)
        draws = []
        for _ in range(800):
            column_M = target.column_C[torch.randperm(len(target.column_C))[:6]]
            draws.append(sampled_log_sum_exp(target, q[row_S], k, row_S, column_M, 0.5).exp())
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 800**0.5
    assert ((mean - exact).abs() < 4 * error + 0.01 * exact).all()


def test_one_seed_one_sample_and_the_mean_over_rows_is_right_on_average():
    term = GraphLoss(cell(network()), "r", rows=4)
    q, k, _ = tensors(N + 1, WIDTH)
    torch.manual_seed(0)
    draws = torch.stack([term(q, k) for _ in range(500)]).detach()
    torch.manual_seed(0)
    assert term(q, k) == draws[0]
    assert draws.std() > 0
    assert (draws.mean() - term.eval()(q, k)).abs() < 4 * draws.std() / 500**0.5


def test_scores_in_the_thousands_do_not_overflow():
    target = GraphTarget(cell(network()), "r")
    q, k, _ = tensors(N, WIDTH, size=100)
    row_S = target.row_R
    ours = sampled_log_sum_exp(target, q[row_S], k, row_S, target.column_C, 0.5)
    torch.testing.assert_close(ours, torch.logsumexp(0.5 * q[row_S] @ k[target.column_C].T, 1), rtol=1e-12, atol=1e-9)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(ours.sum(), (q, k)))
