"""The terms of a network: what is added up with which weight, what is shown, and what is asked of the attention."""

from __future__ import annotations

import pytest
import scipy.sparse as sp
import torch

from tests.screen.small_networks import WIDTH, N, lse_of, network, tensors
from torchcell.graph.cell_graph import CellGraph
from torchcell.screen.models.cell_graph_transformer.attention import HeadScores
from torchcell.screen.models.cell_graph_transformer.graph_loss import GraphLoss
from torchcell.screen.models.cell_graph_transformer.head_assignments import GraphLosses, HeadAssignment

TIES = [
    HeadAssignment("a", 0, 1, 0.5),
    HeadAssignment("b", 1, 0, 0.0),
    HeadAssignment("a", 1, 2, 0.25),
    HeadAssignment("c", 2, 0, 2.0),
]


def graph() -> CellGraph:
    matrices = {name: sp.csr_matrix(network(seed)) for seed, name in enumerate("abc")}
    return CellGraph([f"g{i}" for i in range(N)], matrices)


def scores(summed: bool = True) -> list[HeadScores]:
    """Of one head a tie."""
    made = []
    for seed in range(len(TIES)):
        q, k, _ = tensors(1 + N, WIDTH, seed=seed)
        made.append(HeadScores(q, k, lse_of(q, k) if summed else None))
    return made


def kl(number: int, loss: str = "kl") -> torch.Tensor:
    """Of one tie on its own."""
    q, k, _ = tensors(1 + N, WIDTH, seed=number)
    return GraphLoss(graph(), TIES[number].relation, loss).eval()(q, k)


def same(mine: torch.Tensor, truth: torch.Tensor) -> None:
    torch.testing.assert_close(mine, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("summed", [True, False], ids=["with log-sum-exp", "without"])
def test_a_relation_adds_lambda_over_all_ties_for_each_of_its_heads(summed):
    losses = GraphLosses(graph(), TIES).losses(scores(summed))
    assert list(losses) == ["graph_a", "graph_c"]
    same(losses["graph_a"], (0.5 * kl(0) + 0.25 * kl(2)) / 4)
    same(losses["graph_c"], 2.0 * kl(3) / 4)


def test_lambda_0_is_left_out_of_the_losses_but_shown():
    terms = GraphLosses(graph(), TIES)
    assert "graph_b" not in terms.losses(scores())
    shown = terms.diagnostics(scores())
    assert sorted(shown) == [f"{what}_{name}" for what in ("edge_recall", "graph_kl") for name in "abc"]
    same(shown["graph_kl_b"], kl(1))


def test_diagnostics_are_means_over_a_relations_heads_whatever_lambda():
    terms, given = GraphLosses(graph(), TIES), scores()
    shown, recalls = terms.diagnostics(given), terms.recalls(given)
    same(shown["graph_kl_a"], (kl(0) + kl(2)) / 2)
    same(shown["edge_recall_a"], (recalls[0] + recalls[2]) / 2)
    one = GraphLoss(graph(), "c").edge_recall(given[3].q_TD, given[3].k_TD)
    same(recalls[3], one)
    same(shown["edge_recall_c"], one)


def test_gradients_reach_the_heads_that_count_and_no_other():
    terms, given = GraphLosses(graph(), TIES), scores()
    total = sum(terms.losses(given).values())
    inputs = [each.q_TD for each in given]
    grads = torch.autograd.grad(total, inputs, allow_unused=True, retain_graph=True)
    assert grads[1] is None
    (alone,) = torch.autograd.grad(0.25 / 4 * terms.terms[0](*given[2]), inputs[2:3])
    same(grads[2], alone)


def test_one_term_a_relation_whatever_the_number_of_its_heads():
    assert GraphLosses(graph(), TIES).relations == ["a", "b", "c"]


def test_log_sum_exp_is_asked_for_where_the_objective_reads_it_and_never_in_evaluation():
    terms = GraphLosses(graph(), TIES)
    assert terms.places == [(0, 1), (1, 0), (1, 2), (2, 0)]
    assert terms.summed == [(0, 1), (1, 2), (2, 0)]  # lambda of b is 0
    assert terms.eval().summed == []
    assert terms.train().summed != []


@pytest.mark.parametrize("options", [{"loss": "bce"}, {"rows": 3}], ids=str)
def test_what_reads_no_log_sum_exp_asks_for_none(options):
    assert GraphLosses(graph(), TIES, **options).summed == []


def test_binary_cross_entropy_goes_by_its_own_name():
    shown = GraphLosses(graph(), TIES, "bce").eval().diagnostics(scores(False))
    same(shown["graph_bce_c"], kl(3, "bce"))
    assert "graph_kl_c" not in shown


def test_no_ties_say_nothing():
    terms = GraphLosses(graph(), [])
    assert (terms.losses([]), terms.diagnostics([]), terms.places, terms.summed) == ({}, {}, [], [])


def test_scores_of_another_number_of_heads_are_refused():
    with pytest.raises(ValueError, match="zip"):
        GraphLosses(graph(), TIES).losses(scores()[:3])
