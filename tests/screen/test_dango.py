"""DANGO: symmetry, gradients, one encoding a step, kinds, and what it learns on planted products."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from model_options import with_options
from small_specs import screen_spec

from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.models.dango import Dango, OwnDecoderDango
from torchcell.screen.record import KINDS
from torchcell.screen.spec import ScreenSpec

GENES = tuple(f"g{i}" for i in range(30))


def make_spec(kinds=("absent",), outputs=("epsilon",), task="regression", center=0.4, scale=2.0) -> ScreenSpec:
    matrices = {}
    for i, name in enumerate(("physical", "coexpression")):
        half = sp.random(30, 30, density=0.1, random_state=i)
        matrices[name] = sp.csr_matrix(half + half.T)
    if task == "binary":
        center, scale = 0.0, 1.0
    scaler = torch.full((len(outputs),), center), torch.full((len(outputs),), scale)
    return screen_spec(task, outputs, GENES, kinds, *scaler, CellGraph(GENES, matrices))


def make_batch(sets, kind="absent", outputs=1, target=None) -> PerturbationBatch:
    gene = torch.tensor([gene for members in sets for gene in members])
    ptr = torch.tensor([0, *np.cumsum([len(members) for members in sets]).tolist()])
    kinds = torch.full_like(gene, KINDS.index(kind)) if isinstance(kind, str) else torch.tensor(kind)
    if target is None:
        target = torch.randn(len(sets), outputs)
    level = torch.full(gene.shape, float("nan"))
    return PerturbationBatch(gene=gene, ptr=ptr, kind=kinds, level=level, target=target, sample=torch.arange(len(sets)))


def small(spec: ScreenSpec, model: type[Dango] = Dango, **choices) -> Dango:
    return model(spec, **with_options(model, {"encoder__dim": 32, "readout__heads": 2} | choices))


def total(model: Dango, batch: PerturbationBatch) -> torch.Tensor:
    return torch.stack(list(model.losses(batch, model(batch)).values())).sum()


SETS = [(0, 1), (2, 3, 4), (5,), (6, 7, 8, 9)]


@pytest.mark.parametrize("score", ["difference", "product"])
@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize("decoder", ["own", "shared"])
def test_every_parameter_gets_a_gradient_in_one_step(score, task, decoder):
    spec = make_spec(kinds=("absent", "overexpressed"), task=task)
    model = small(spec, OwnDecoderDango if decoder == "own" else Dango, readout__score=score, embedding__decay=0.1)
    kind = [KINDS.index("overexpressed" if i % 3 else "absent") for i in range(10)]
    total(model, make_batch(SETS, kind, target=torch.tensor([[0.0], [1.0], [1.0], [0.0]]))).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_prediction_is_in_the_units_of_the_target():
    """A head that says 0 predicts the training mean; one that says 1, one standard deviation above."""
    model = small(make_spec(center=0.4, scale=2.0))
    with torch.no_grad():
        model.head.readout.weight.zero_()
        model.head.readout.bias.fill_(1.0)
    torch.testing.assert_close(model(make_batch(SETS)), torch.full((4, 1), 2.4))


def test_terms_are_named_and_missing_targets_are_masked():
    model = small(make_spec(), embedding__decay=0.0)
    batch = make_batch([(0, 1), (2, 3)], target=torch.tensor([[1.0], [float("nan")]]))
    terms = model.losses(batch, model(batch))
    assert list(terms) == ["phenotype", "reconstruction"]
    first = make_batch([(0, 1)], target=torch.tensor([[1.0]]))
    torch.testing.assert_close(terms["phenotype"], model.losses(first, model(first))["phenotype"])


def test_embedding_term_is_the_mean_squared_length_of_the_members():
    model = small(make_spec(), embedding__decay=0.5)
    batch = make_batch(SETS)
    expected = 0.5 * model.genes()[batch.gene].square().sum(1).mean()
    torch.testing.assert_close(model.losses(batch, model(batch))["embedding"], expected)


def test_the_encoder_runs_once_a_step(monkeypatch):
    """Elsewhere two forward passes a step: one for the prediction, one for the reconstruction."""
    model, batch = small(make_spec()), make_batch(SETS)
    encode, calls = model.encode, []
    monkeypatch.setattr(model, "encode", lambda: calls.append(1) or encode())
    for step in range(1, 3):
        total(model, batch).backward()
        assert len(calls) == step


def test_evaluation_encodes_once_until_the_parameters_change(monkeypatch):
    model, batch = small(make_spec()).eval(), make_batch(SETS)
    encode, calls = model.encode, []
    monkeypatch.setattr(model, "encode", lambda: calls.append(1) or encode())
    other = small(make_spec()).eval()
    with torch.no_grad():
        before = model(batch)
        model(batch)
        assert len(calls) == 1
        model.load_state_dict(other.state_dict())
        assert not torch.equal(model(batch), before)
        torch.testing.assert_close(model(batch), other(batch))
        assert len(calls) == 2
        model.train()
        model.eval()
        model(batch)
        assert len(calls) == 3
    copy.deepcopy(model)


def test_kinds_enter_and_start_without_effect():
    model = small(make_spec(kinds=("absent", "overexpressed")))
    absent, over = make_batch(SETS), make_batch(SETS, "overexpressed")
    torch.testing.assert_close(model(absent), model(over))
    with torch.no_grad():
        model.kind_embedding.weight[1] = 1.0
    assert not torch.allclose(model(absent), model(over))


def test_a_kind_that_training_never_saw_is_refused_by_name():
    model = small(make_spec(kinds=("absent",))).eval()
    with pytest.raises(InputError, match="'knockdown'"):
        model(make_batch(SETS, "knockdown"))


def test_a_step_runs_under_mixed_precision():
    model = small(make_spec())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total(model, make_batch(SETS)).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_shapes_do_not_depend_on_samples_and_binary_adds_nothing():
    shapes = [
        {name: p.shape for name, p in small(make_spec(task=task)).named_parameters()}
        for task in ("regression", "binary")
    ]
    assert shapes[0] == shapes[1]
    assert shapes[0]["embedding.weight"] == (30, 32)


def test_channels_choose_relations_and_bad_ones_are_refused():
    model = small(make_spec(), encoder__channels=["coexpression"], reconstruction__zero_weight={"coexpression": 0.5})
    assert len(model.encoders) == 1
    with pytest.raises(InputError, match=r"'coexpresion'.*coexpression"):
        small(make_spec(), encoder__channels=["coexpresion"])
    with pytest.raises(InputError, match="each once"):
        small(make_spec(), encoder__channels=["physical", "physical"])
    with pytest.raises(InputError, match="no entry for the channels"):
        small(make_spec(), reconstruction__zero_weight={"physical": 1.0})
    with pytest.raises(InputError, match="no graph"):
        Dango(dataclasses.replace(make_spec(), graph=None))


def test_only_relations_among_genes_are_channels():
    """It once ended in a bare ValueError of SciPy where the graph had annotations too."""
    spec, terms = make_spec(), ("t0", "t1", "t2")
    matrices = {name: spec.graph.scipy(name) for name in spec.graph.relations}
    annotated = sp.random(3, 30, density=0.5, random_state=0)
    is_a = sp.csr_matrix(([1.0], ([0], [1])), shape=(3, 3))
    ends = {"annotated": ("gene", "term"), "is_a": ("term", "term")}

    def over(chosen: dict) -> ScreenSpec:
        held = {name: kinds for name, kinds in ends.items() if name in chosen}
        return dataclasses.replace(spec, graph=CellGraph(GENES, chosen, held, None, {"term": terms}, held))

    mixed = over({"annotated": annotated} | matrices | {"is_a": is_a})
    model = small(mixed)
    assert model.channels == ["physical", "coexpression"]
    assert small(mixed, encoder__channels=["coexpression"]).channels == ["coexpression"]
    plain = small(spec)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(total(model.eval(), make_batch(SETS, target=torch.ones(4, 1))),
                               total(plain.eval(), make_batch(SETS, target=torch.ones(4, 1))))  # fmt: skip
    for relation, joins in (("annotated", "genes to terms"), ("is_a", "terms to terms")):
        with pytest.raises(InputError, match=f"'{relation}', which joins {joins}.*'physical', 'coexpression'"):
            small(mixed, encoder__channels=["physical", relation])
    with pytest.raises(InputError, match="networks among genes, and the graph has none"):
        Dango(over({"annotated": annotated}))


@pytest.mark.parametrize("score", ["difference", "product"])
def test_learns_a_planted_product_that_no_additive_model_can(score):
    """y = u_i u_j with u = +-1: the best sum of single-gene effects explains next to nothing."""
    torch.manual_seed(0)
    u = torch.where(torch.rand(30) < 0.5, -1.0, 1.0)
    pairs = torch.combinations(torch.arange(30))[torch.randperm(435)]
    y = (u[pairs[:, 0]] * u[pairs[:, 1]])[:, None]
    train, test = (make_batch(pairs[part].tolist(), target=y[part]) for part in (slice(335), slice(335, None)))
    model = small(make_spec(center=float(y.mean()), scale=1.0), readout__score=score, embedding__decay=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        total(model, train).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = model(test)
    assert np.corrcoef(predicted[:, 0].numpy(), test.target[:, 0].numpy())[0, 1] > 0.9


def test_a_sets_latent_is_the_mean_of_its_members():
    """Of one member: that gene's own embedding, whatever stands beside it in the batch."""
    model = small(make_spec()).eval()
    with torch.no_grad():
        genes = model.gene_embeddings()["genes"]
        members = model.set_embeddings(make_batch(SETS))["members"]
    expected = torch.stack([genes[list(each)].mean(0) for each in SETS])
    torch.testing.assert_close(members, expected)
    assert genes.shape == (30, 32)


def test_the_latent_of_a_set_tells_kinds_apart_and_refuses_unknown_ones():
    model = small(make_spec(kinds=("absent", "overexpressed"))).eval()
    torch.nn.init.normal_(model.kind_embedding.weight)
    with torch.no_grad():
        absent, over = (model.set_embeddings(make_batch(SETS, kind))["members"] for kind in ("absent", "overexpressed"))
        assert not torch.isclose(absent, over).all(1).any()
        with pytest.raises(InputError, match="knockdown"):
            model.set_embeddings(make_batch(SETS, "knockdown"))
