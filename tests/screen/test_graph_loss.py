"""The graph term against a dense oracle in float64: value and gradients, alone and through the attention."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nn.largest_tensor import LargestTensor
from tests.screen.small_networks import TIGHT, WIDTH, N, assert_same, cell, edges, lse_of, network, tensors
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer import graph_loss as graph_term
from torchcell.screen.models.cell_graph_transformer import graph_loss as graph_term_sampled
from torchcell.screen.models.cell_graph_transformer.attention import attention
from torchcell.screen.models.cell_graph_transformer.graph_loss import GraphLoss
from torchcell.screen.models.cell_graph_transformer.options import GraphLossOptions


def dense_kl(matrix, q_TD, k_TD, specials=1, covered=None):
    weight, covered = edges(matrix, covered)
    share = weight / weight.sum(1, keepdim=True).clamp(min=1e-300)
    score = q_TD[specials:] @ k_TD[specials:].T / q_TD.shape[1] ** 0.5
    log_alpha = score.masked_fill(~covered, -torch.inf).log_softmax(1)
    kl = torch.where(share > 0, share * (share.clamp(min=1e-300).log() - log_alpha.masked_fill(~covered, 0)), 0).sum(1)
    return kl[weight.sum(1) > 0].mean()


@pytest.mark.parametrize("few", [64, 1], ids=["few left out", "many left out"])
@pytest.mark.parametrize("specials", [0, 1, 2], ids="specials={}".format)
@pytest.mark.parametrize("directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("mask", ["edges", "all", "half"])
def test_the_whole_equals_the_dense_form(monkeypatch, few, specials, directed, mask):
    monkeypatch.setattr(graph_term, "FEW", few)
    matrix = network(directed=directed)
    graph = cell(matrix, directed)
    covered = {"edges": None, "all": torch.ones(N, dtype=torch.bool), "half": torch.arange(N) % 4 != 2}[mask]
    term = GraphLoss(graph, "r", covered=covered, specials=specials)
    assert term.needs_lse == (specials + len(term.target.other_X) <= few)
    q, k, v = inputs = tensors(3, specials + N, WIDTH)
    out, lse = attention(q, k, v, [2, 0])
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    ours = (weight * out).sum() + 3 * term(q[2], k[2], lse[0]) + term(q[0], k[0], lse[1])
    score = q @ k.transpose(1, 2) / WIDTH**0.5
    wanted = (weight * (score.softmax(-1) @ v)).sum()
    wanted = wanted + sum(a * dense_kl(matrix, q[h], k[h], specials, covered) for a, h in ((3, 2), (1, 0)))
    assert_same(ours, wanted, inputs)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.floats(0.05, 1), st.booleans(), st.integers(0, 3), st.floats(0.1, 6), st.booleans())
def test_any_network_equals_the_dense_form(seed, share, directed, specials, size, fused):
    matrix = network(seed, share=share, directed=directed)
    term = GraphLoss(cell(matrix, directed), "r", specials=specials)
    q, k, _ = tensors(specials + N, WIDTH, size=size, seed=seed)
    ours = term(q, k, lse_of(q, k) if fused else None)
    wanted = dense_kl(matrix, q, k, specials)
    atol = 1e-12 * max(1, size**2)  # scores grow with the square, and their rounding with them
    assert_same(ours, wanted, (q, k), rtol=1e-12, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("above", [-5, 0, 2, 5, 14, 20], ids="e^{}".format)
def test_a_cls_that_outweighs_the_genes_leaves_values_and_gradients_right(above, dtype):
    """Taken out of the log-sum-exp, it left an error of 6e-5 at e^5 and NaN in the gradients at e^14."""
    matrix = network()
    term = GraphLoss(cell(matrix), "r").to(dtype)
    q, k, v = tensors(1, N + 1, WIDTH)
    with torch.no_grad():
        q[0, :, 0], k[0, :, 0] = 1, 0
        k[0, 0] = 0
        outweigh = torch.logsumexp(q[0, 1:] @ k[0, 1:].T / WIDTH**0.5, 1).mean() + above
        k[0, 0, 0] = outweigh * WIDTH**0.5
    low = [each.detach().to(dtype).requires_grad_() for each in (q, k, v)]
    _, lse = attention(*low, [0])
    ours = term(low[0][0], low[1][0], lse[0])
    wanted = dense_kl(matrix, q[0], k[0])
    tolerance = TIGHT if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(ours.double(), wanted, **tolerance)
    found, truth = torch.autograd.grad(ours, low[:2]), torch.autograd.grad(wanted, (q, k))
    for mine, reference in zip(found, truth, strict=True):
        torch.testing.assert_close(mine.double(), reference, **tolerance)


def test_an_added_gene_and_an_uncovered_one_feel_nothing():
    """Genes 3 and 7 have no edges; whatever they are, the term and all gradients stay as they are."""
    term = GraphLoss(cell(network()), "r")
    q, k, _ = tensors(N + 1, WIDTH)
    grads = torch.autograd.grad(term(q, k, lse_of(q, k)), (q, k))
    assert all(grad[[0, 4, 8]].abs().max() < 1e-15 for grad in grads)
    other = [each.detach().clone() for each in (q, k)]
    other[1][[0, 4, 8]] += 1
    torch.testing.assert_close(term(*other, lse_of(*other)), term(q, k, lse_of(q, k)), **TIGHT)


@pytest.mark.parametrize("loss", ["kl", "bce"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_relation_of_self_loops_alone_contributes_exactly_nothing(loss, training):
    graph = CellGraph([f"g{i}" for i in range(N)], {"r": sp.identity(N)})
    for covered in (None, torch.ones(N, dtype=torch.bool)):
        term = GraphLoss(graph, "r", loss, covered=covered).train(training)
        q, k, _ = tensors(N + 1, WIDTH)
        lse = lse_of(q, k)
        assert not term.needs_lse
        value = term(q, k, lse)
        assert value == 0
        assert all((grad == 0).all() for grad in torch.autograd.grad(value, (q, k)))
        assert math.isnan(term.edge_recall(q, k))


def test_perfect_attention_has_a_kl_of_zero_and_finds_all_edges():
    """Three cliques, and a head whose scores are high within a clique and lowest with oneself."""
    matrix = np.kron(np.eye(3), np.ones((4, 4))) - np.eye(12)
    term = GraphLoss(cell(matrix.astype(np.float32)), "r", specials=0)
    score = torch.from_numpy(60 * matrix)
    q, k = score * 12**0.5, torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(term(q, k, lse_of(q, k)), torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)
    assert term.edge_recall(q, k) == 1
    assert term.edge_recall(-q, k) == 0


@pytest.mark.parametrize("chunk", [1, 5, 512], ids="chunk={}".format)
def test_edge_recall_equals_a_loop_over_genes(chunk):
    matrix = network()
    term = GraphLoss(cell(matrix), "r")
    q, k, _ = tensors(N + 1, WIDTH)
    weight, covered = edges(matrix)
    score = (q[1:] @ k[1:].T).detach().masked_fill(~covered, -torch.inf).fill_diagonal_(-torch.inf)
    shares = []
    for i in weight.sum(1).nonzero()[:, 0].tolist():
        near = set(weight[i].nonzero()[:, 0].tolist())
        shares.append(len(near & set(score[i].topk(len(near)).indices.tolist())) / len(near))
    torch.testing.assert_close(term.edge_recall(q, k, chunk), torch.tensor(np.mean(shares)), **TIGHT)


def test_bfloat16_autocast_is_near():
    matrix = network()
    term = GraphLoss(cell(matrix), "r")
    q, k, v = (each.detach().float().requires_grad_() for each in tensors(2, N + 1, 16))
    with torch.autocast("cpu", torch.bfloat16):
        low = [each.bfloat16() for each in (q, k, v)]
        _, lse = attention(*low, [1])
        ours = term(low[0][1], low[1][1], lse[0])
    assert ours.dtype == torch.float32
    assert_same(ours, dense_kl(matrix, q[1].double(), k[1].double()).float(), (q, k), rtol=0.1, atol=0.01)


@pytest.mark.parametrize("negatives", [None, N], ids=["all columns", "all non-neighbors"])
@pytest.mark.parametrize("rows", [9, N], ids="rows={}".format)
def test_all_rows_and_all_non_neighbors_equal_the_whole(monkeypatch, rows, negatives):
    """9 of the 10 rows drawn, summed over all ways to draw them, are the whole; N asks for more than there are."""
    matrix = network()
    term = GraphLoss(cell(matrix), "r", rows=rows, negatives=negatives)
    assert len(term.target.row_R) == 10
    for name in ("ROWS", "EDGES"):
        monkeypatch.setattr(graph_term_sampled, name, 4)
    q, k, _ = tensors(N + 1, WIDTH)
    value = torch.zeros((), dtype=torch.float64)
    ways = 10 if rows == 9 else 1
    for way in range(ways):

        def draw(candidates, n, way=way):
            is_row = candidates is term.target.row_R
            return candidates[torch.arange(10) != way] if is_row else candidates[torch.randperm(len(candidates))[:n]]

        with monkeypatch.context() as patch:
            patch.setattr(graph_term, "_draw", draw)
            value = value + term(q, k, lse_of(q, k)) / ways
    assert_same(value, dense_kl(matrix, q, k), (q, k))
    assert term.needs_lse == (rows == N)
    torch.testing.assert_close(term.eval()(q, k, lse_of(q, k)), dense_kl(matrix, q, k), **TIGHT)
    assert term.needs_lse


def test_nothing_of_size_n_by_n_or_edges_by_width_is_made():
    """However the log-sum-exp is got, the largest is a chunk of 512 rows or of 65,536 edges."""
    n = 2500
    matrix = network(n=n, share=0.1)
    graph = cell(matrix)
    q, k, _ = tensors(n + 1, 16)
    lse = lse_of(q, k).detach()
    for extra in ({}, {"covered": torch.arange(n) < n - 100}, {"rows": 700}, {"rows": 700, "negatives": 300}):
        term = GraphLoss(graph, "r", **extra)
        with LargestTensor() as seen:
            term(q, k, lse).backward()
            term.edge_recall(q, k)
        chunk = max(512 * n, 65_536 * 16)
        assert seen.numel <= chunk < min(n * n, term.target.n_edges * 16) / 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"relation": "rr"}, "no relation 'rr'"),
        ({"relation": "makes"}, "joins genes to reactions"),
        ({"specials": -1}, "specials=-1"),
        ({"covered": torch.ones(5, dtype=torch.bool)}, "covers 5 genes, the graph has 12"),
    ],
    ids=lambda value: str(list(value.values())[-1])[:8] if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_an_error_that_says_so(given, message):
    matrices = {"r": sp.csr_matrix(network()), "makes": sp.csr_matrix(np.ones((1, N)))}
    graph = CellGraph(
        [f"g{i}" for i in range(N)],
        matrices,
        ["makes"],
        nodes={"reaction": ["x"]},
        ends={"makes": ("gene", "reaction")},
    )
    with pytest.raises(InputError, match=message):
        GraphLoss(graph, **{"relation": "r", **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"form": "mse"}, r"model.graph_loss.form='mse': choose from \['kl', 'bce'\]"),
        (
            {"rows": 0, "negatives": -1},
            "graph_loss.rows=0: it must be 1 or more, or null; model.graph_loss.negatives=-1",
        ),
        ({"negatives": 5}, "negatives=5 needs model.graph_loss.rows"),
        ({"form": "bce", "rows": 5}, "rows=5 is for form=kl: bce samples edges"),
    ],
    ids=["form", "sizes", "negatives alone", "rows of bce"],
)
def test_options_that_do_not_fit_each_other_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        GraphLossOptions(**given)


def test_the_wrong_number_of_tokens_is_an_error():
    term = GraphLoss(cell(network()), "r", specials=2)
    q, k, _ = tensors(N + 1, WIDTH)
    for call in (term, term.edge_recall):
        with pytest.raises(InputError, match="13 tokens; give 2 special ones and the graph's 12 genes, 14"):
            call(q, k)


def test_nothing_of_it_is_in_a_checkpoint():
    assert not GraphLoss(cell(network()), "r").state_dict()
