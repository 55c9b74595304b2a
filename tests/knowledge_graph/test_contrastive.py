"""Similar pairs against sets, and InfoNCE in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from torchcell.knowledge_graph.models.hgt_embedder import losses as contrastive
from torchcell.knowledge_graph.models.hgt_embedder.losses import InfoNCE, similar_pairs


@pytest.mark.parametrize("chunk", [3, 2_048])
def test_pairs_are_those_above_the_jaccard_index(chunk, monkeypatch):
    monkeypatch.setattr(contrastive, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    table = sp.csr_matrix((rng.random((25, 30)) < 0.15) * rng.integers(1, 4, (25, 30)))
    rows = [set(table[i].indices.tolist()) for i in range(25)]
    expected = {
        (i, j)
        for i in range(25)
        for j in range(25)
        if i != j and rows[i] | rows[j] and len(rows[i] & rows[j]) / len(rows[i] | rows[j]) > 0.2
    }
    first, second = similar_pairs(table, 0.2)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert len(first) == len(expected)
    assert table.data.max() > 1  # the caller's table is left as it was


def test_most_keeps_the_most_similar():
    rows = [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 9], [0, 8, 9, 7]]
    table = np.zeros((4, 10))
    for i, columns in enumerate(rows):
        table[i, columns] = 1
    first, second = similar_pairs(sp.csr_matrix(table), 0.1, most=1)
    assert list(zip(first, second, strict=True)) == [(0, 1), (1, 0), (2, 0), (3, 2)]


def term(**options) -> InfoNCE:
    return InfoNCE(np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2]), 6, **options)


def test_is_the_softmax_over_the_pair_and_what_is_not_similar():
    z = torch.randn(6, 5, dtype=torch.float64)
    info, k = term(temperature=0.5), torch.tensor([0, 1, 3, 4, 4, 5])
    i, j = torch.tensor([0, 2]), torch.tensor([1, 3])
    unit = z / z.norm(dim=1, keepdim=True)
    expected = []
    for a, b in ((0, 1), (2, 3)):
        free = [c for c in k.tolist() if c not in (a, b)]
        scores = torch.stack([unit[a] @ unit[c] / 0.5 for c in [b, *free]])
        expected.append(scores.logsumexp(0) - scores[0])
    torch.testing.assert_close(info(z[i], z[j], z[k], i, k), torch.stack(expected).mean())


def test_vectors_all_alike_cost_the_log_of_the_choices():
    z, k = torch.ones(6, 5), torch.tensor([4, 5, 4, 5, 4])
    i = torch.tensor([0, 1])
    assert math.isclose(float(term()(z[i], z[i], z[k], i, k)), math.log(6), rel_tol=1e-6)


def test_draws_are_similar_pairs_and_the_seed_decides_them():
    info, drawn = term(anchors=3, negatives=7), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(info.draw())
    i, j, k = drawn[0]
    assert len(i) == 3
    assert len(k) == 7
    assert set(zip(i.tolist(), j.tolist(), strict=True)) <= {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not torch.equal(drawn[0][2], drawn[2][2])


def test_a_type_without_similar_nodes_costs_nothing():
    none = np.zeros(0, dtype=np.int64)
    info = InfoNCE(none, none, 4)
    i, j, k = info.draw()
    z = torch.randn(4, 3, requires_grad=True)
    loss = info(z[i], z[j], z[k], i, k)
    loss.backward()
    assert loss.item() == 0
