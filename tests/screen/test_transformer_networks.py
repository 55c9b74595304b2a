"""How networks enter the cell graph transformer: graph losses, random networks, hard masks; and what is refused."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch

from tests.screen.small_transformers import SETS, N, fit, make, make_batch, make_spec, with_graph
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.models.cell_graph_transformer.controls import HardMaskTransformer, RandomNetworks
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer
from torchcell.screen.models.cell_graph_transformer.options import EncoderOptions, GraphLossOptions


def recall_of(weight: float, options: type[GraphLossOptions] = GraphLossOptions) -> tuple[float, float]:
    """Edge recall of the assigned head on the true network, before and after 60 steps."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, 6, N)
    spec = with_graph(make_spec(), groups=(own[:, None] == own) & ~np.eye(N, dtype=bool))
    model, batch = make(spec, graph_loss=options(weight=weight)), make_batch(SETS)
    true, recalls = make(spec), []
    for steps in (0, 60):
        fit(model, batch, steps)
        with torch.no_grad():
            scores = model.eval().wild_type().cell.scores
        recalls.append(float(true.graph_losses.recalls(scores)[0]))
        model.train()
    return recalls[0], recalls[1]


def test_edge_recall_rises_under_a_graph_loss_and_not_without_or_with_random_networks():
    before, after = recall_of(1.0)
    assert after > before + 0.4
    assert recall_of(0.0)[1] < before + 0.2
    assert recall_of(1.0, RandomNetworks)[1] < before + 0.2


def test_divergence_and_recall_are_shown_even_where_the_weight_is_0():
    model, batch = make(graph_loss__weight={"physical": 0.0, "coexpression": 0.5}), make_batch(SETS)
    assert list(model.losses(batch, model(batch))) == ["phenotype", "graph_coexpression"]
    shown = model.eval().diagnostics(batch)
    names = {f"{measure}_{name}" for measure in ("graph_kl", "edge_recall") for name in ("physical", "coexpression")}
    assert set(shown) == names
    assert all(torch.isfinite(value) for value in shown.values())
    loss = model.losses(batch, model(batch))["graph_coexpression"]
    torch.testing.assert_close(loss, 0.5 / 2 * shown["graph_kl_coexpression"])


def test_random_networks_are_others_of_the_same_degrees_and_the_same_every_time():
    given = (GraphLossOptions(), RandomNetworks(), RandomNetworks())
    real, drawn, again = (make(graph_loss=options).graph_losses for options in given)
    for name in ("physical", "coexpression"):
        targets = [terms.terms[terms.relations.index(name)].target for terms in (real, drawn, again)]
        assert torch.equal(targets[0].degree_N, targets[1].degree_N)
        assert not torch.equal(targets[0].csr().indices, targets[1].csr().indices)
        assert torch.equal(targets[1].csr().indices, targets[2].csr().indices)


@pytest.mark.parametrize("options", [GraphLossOptions(), RandomNetworks()], ids=["real", "random"])
def test_a_hard_mask_hides_all_but_the_neighbors_in_the_network(options):
    """One layer, one head on a ring: a gene's token reaches itself and its two neighbors; without a mask, all."""
    ring = np.roll(np.eye(N), 1, axis=1) + np.roll(np.eye(N), -1, axis=1)
    spec, reached = with_graph(make_spec(features=False), ring=ring), []
    small = {"encoder__dim": 16, "encoder__heads": 1, "encoder__layers": 1, "graph_loss": options}
    for model_class in (HardMaskTransformer, CellGraphTransformer):
        model = make(spec, model=model_class, **small).eval()
        with torch.no_grad():
            before = model.gene_embeddings()["tokens"]
            model.embedding.table.weight[5] = -model.embedding.table.weight[5]
            after = model.gene_embeddings()["tokens"]
        reached.append(set((before != after).any(1).nonzero()[:, 0].tolist()))
    assert reached[1] == set(range(N))
    assert len(reached[0]) == 3
    assert (reached[0] == {4, 5, 6}) == (type(options) is GraphLossOptions)


def test_assignments_choose_heads_and_only_relations_among_genes_have_one():
    model = make(graph_loss__head_assignments={"coexpression": [[1, 0], [0, 1]]})
    assert [tuple(one[:3]) for one in model.assignments] == [("coexpression", 0, 1), ("coexpression", 1, 0)]
    batch = make_batch(SETS)
    assert list(model.losses(batch, model(batch))) == ["phenotype", "graph_coexpression"]
    assert [tuple(one[:3]) for one in make().assignments] == [("physical", 0, 0), ("coexpression", 0, 1)]


# Bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            {"graph_loss__head_assignments": {"coexpresion": [[0, 0]]}},
            "model.graph_loss.head_assignments names 'coexpresion'.*coexpression",
        ),
        ({"graph_loss__weight": {"physcal": 1.0}}, "model.graph_loss.weight names 'physcal'.*physical"),
        ({"graph_loss__weight": {"physical": 1.0}}, "no lambda for coexpression"),
        ({"encoder__dim": 16, "encoder__heads": 1, "encoder__layers": 1}, "2 relations and 1 heads"),
        (
            {"graph_loss__head_assignments": {"physical": [[0, 0]], "coexpression": [[0, 0]]}},
            "both physical and coexpression on layer 0",
        ),
        ({"graph_loss__head_assignments": {"physical": [[2, 0]]}}, "layer 2, head 0; there are 2 layers and 2 heads"),
        ({"graph_loss__weight": -0.1}, "is -0.1; lambda must be a number, 0 or more"),
        ({"graph_loss__form": "mse"}, r"model.graph_loss.form='mse': choose from \['kl', 'bce'\]"),
        ({"readout__pairs__start": "als"}, r"model.readout.pairs.start='als': choose from"),
        ({"readout__pooling": "max"}, "model.readout.pooling='max': choose from"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(choices, said):
    with pytest.raises(InputError, match=said):
        make(**choices)


def test_without_a_graph_the_cell_is_its_genes_and_no_head_is_assigned():
    spec = dataclasses.replace(make_spec(), graph=None)
    model = make(spec).eval()
    assert model.graph.genes.tolist() == list(spec.genes)
    assert not model.assignments
    batch = make_batch(SETS)
    assert torch.isfinite(model(batch)).all()


def test_all_wrong_values_of_a_group_are_named_at_once():
    said = "model.encoder.dim=0: it must be 1 or more; model.encoder.dropout=2.0: it is a rate, from 0 to 1"
    with pytest.raises(InputError, match=re.escape(said)):
        EncoderOptions(dim=0, dropout=2.0)


def test_data_that_lack_what_is_asked_for_are_refused():
    with pytest.raises(InputError, match="nothing to make tokens of: give data.features"):
        make(make_spec(features=False), embedding__free=False)


def test_a_kind_that_training_never_saw_is_refused_by_name():
    with pytest.raises(InputError, match="'knockdown'"):
        make().eval()(make_batch(SETS, "knockdown"))


def test_relations_that_leave_the_genes_cannot_be_assigned():
    spec = make_spec()
    matrices = {name: spec.graph.scipy(name) for name in spec.graph.relations}
    ends = {"annotated": ("gene", "term")}
    matrices["annotated"] = np.ones((2, N))
    graph = CellGraph(spec.genes, matrices, ["annotated"], None, {"term": ["t0", "t1"]}, ends)
    mixed = dataclasses.replace(spec, graph=graph)
    assert [one.relation for one in make(mixed).assignments] == ["physical", "coexpression"]
    with pytest.raises(InputError, match="no relation among genes"):
        make(mixed, graph_loss__head_assignments={"annotated": [[0, 0]]})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"embedding__imputation__untrained_rate": 0.3, "embedding__imputation__neighbors": 0},
            "needs model.embedding.imputation.neighbors",
        ),
        (
            {"embedding__imputation__untrained_rate": 1.5, "embedding__imputation__neighbors": 3},
            "untrained_rate=1.5: it is a rate",
        ),
        ({"embedding__imputation__neighbors": -2}, "neighbors=-2: it must be 0 or more"),
        ({"embedding__decay": -1.0}, "model.embedding.decay=-1.0"),
        ({"readout__score": "prodct"}, "score='prodct'"),
        ({"readout__pairs__start": "least_squares", "readout__pairs__width": 0}, "needs model.readout.pairs.width"),
        ({"readout__pairs__start": "least_squares", "readout__pairs__width": 3}, "a multiple of 2"),
    ],
)
def test_values_that_would_be_passed_over_in_silence_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        make(make_spec(), **options)
