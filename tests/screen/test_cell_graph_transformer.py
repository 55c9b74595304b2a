"""The cell graph transformer: symmetry, gradients, precision, one encoding of the wild type, latents."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from tests.screen.small_transformers import SETS, N, fit, make, make_batch, make_spec, total
from torchcell.screen.models.cell_graph_transformer.controls import HardMaskTransformer, RandomNetworks
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer
from torchcell.screen.record import KINDS

CHOICES = {
    "plain": {},
    "features only": {"embedding__free": False},
    "names only": {"features": False},
    "pairs": {"readout__pairs__width": 6, "readout__pairs__decay": 0.1, "embedding__decay": 0.1},
    "kinds": {"kinds": ("absent", "overexpressed")},
    "levels": {"kinds": ("absent", "knockdown"), "readout__levels": True},
    "pooled by hyper_sagnn": {"readout__pooling": "hyper_sagnn", "encoder__heads": 2},
    "score of differences": {"readout__score": "difference"},
    "no score of members": {"readout__score": None, "readout__pooling": "sum"},
    "bce": {"graph_loss__form": "bce"},
    "sampled rows": {"graph_loss__rows": 5, "graph_loss__negatives": 4},
    "hard mask": {"model": HardMaskTransformer},
    "no graph loss": {"graph_loss__weight": 0.0},
    "random networks": {"graph_loss": RandomNetworks()},
    "no layers": {"encoder__layers": 0, "graph_loss__head_assignments": {}},
    "layers computed again": {"encoder__gradient_checkpointing": True, "encoder__dropout": 0.1},
    "untrained genes": {
        "embedding__imputation__neighbors": 3,
        "embedding__imputation__untrained_rate": 0.3,
        "readout__pairs__width": 4,
    },
    "binary": {"task": "binary"},
    "two outputs": {"outputs": ("a", "b")},
}
OF_SPEC = ("features", "kinds", "task", "outputs")
every_choice = pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)


def build(choice: dict, **more) -> tuple[CellGraphTransformer, dict]:
    """The model of a choice, and what its batches need."""
    known = {key: value for key, value in choice.items() if key in OF_SPEC}
    model = make(make_spec(**known), **{key: value for key, value in choice.items() if key not in OF_SPEC}, **more)
    n_outputs, kinds = len(known.get("outputs", "y")), known.get("kinds", ("absent",))
    given = {
        "kind": [KINDS.index(kinds[i % len(kinds)]) for i in range(10)],
        "target": torch.tensor([[0.0], [1.0], [1.0], [0.0]]).expand(4, n_outputs),
        "level": torch.where(torch.arange(10) % 3 == 0, torch.nan, torch.arange(10) / 10),
    }
    return model, given


def count_encodings(model: CellGraphTransformer) -> list[int]:
    calls: list[int] = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


# What every model promises ---------------------------------------------------------------------------


@every_choice
def test_every_parameter_gets_a_gradient_in_one_step(choice):
    model, given = build(choice)
    total(model, make_batch(SETS, **given)).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@every_choice
def test_the_order_of_members_changes_nothing_and_one_set_alone_is_a_batch(choice):
    model, given = build(choice)
    model = model.double().eval()
    given = {key: torch.as_tensor(value) for key, value in given.items()} | {"level": given["level"].double()}
    batch = make_batch(SETS, given["kind"].tolist(), target=given["target"].double(), level=given["level"])
    order = torch.tensor([1, 0, 4, 2, 3, 5, 9, 6, 8, 7])
    mixed = {name: getattr(batch, name)[order] for name in ("gene", "kind", "level")}
    with torch.no_grad():
        whole = model(batch)
        torch.testing.assert_close(model(dataclasses.replace(batch, **mixed)), whole, rtol=1e-6, atol=1e-6)
        alone = torch.cat([model(batch.narrow(i, i + 1)) for i in range(len(batch))])
    torch.testing.assert_close(alone, whole, rtol=1e-6, atol=1e-6)
    assert len(whole.unique()) == whole.numel()


@pytest.mark.parametrize("choice", [{}, {"readout__pairs__width": 4}, {"features": False}], ids=str)
def test_no_shape_depends_on_samples_or_task(choice):
    shapes = [{name: p.shape for name, p in build(choice | {"task": t})[0].named_parameters()}
              for t in ("regression", "binary")]  # fmt: skip
    assert shapes[0] == shapes[1]


def test_without_names_no_parameter_knows_how_many_genes_there_are():
    spec = [make_spec(n=n) for n in (N, N + 10)]
    bare = [{name: value.shape for name, value in make(each, embedding__free=False).state_dict().items()}
            for each in spec]  # fmt: skip
    assert bare[0] == bare[1]
    assert not make(spec[0], embedding__free=False).reads_names
    assert make(spec[0]).reads_names
    assert make(spec[0], embedding__free=False, readout__pairs__width=4).reads_names


def test_prediction_is_in_the_units_of_the_target():
    """Heads that say nothing predict the training mean; a bias of 1, one standard deviation above."""
    model = make(readout__score=None)
    with torch.no_grad():
        model.readout[-1].weight.zero_()
        model.readout[-1].bias.fill_(1.0)
    torch.testing.assert_close(model(make_batch(SETS)), torch.full((4, 1), 2.4))


def test_terms_are_named_and_missing_targets_are_masked():
    model = make(readout__pairs__width=4, readout__pairs__decay=0.5, embedding__decay=0.25)
    batch = make_batch([(0, 1), (2, 3)], target=torch.tensor([[1.0], [float("nan")]]))
    terms = model.losses(batch, model(batch))
    assert list(terms) == ["phenotype", "graph_physical", "graph_coexpression", "embedding", "pairs"]
    first = make_batch([(0, 1)], target=torch.tensor([[1.0]]))
    torch.testing.assert_close(terms["phenotype"], model.losses(first, model(first))["phenotype"])
    rows = {"embedding": (0.25, model.embedding), "pairs": (0.5, model.pairs.vectors)}
    for name, (weight, vectors) in rows.items():
        torch.testing.assert_close(terms[name], weight * vectors.table.weight[:4].square().sum(1).mean())
    assert list(make(model=HardMaskTransformer).losses(batch, torch.zeros(2, 1))) == ["phenotype"]


def test_bfloat16_changes_the_objective_by_rounding_only():
    model, batch = make(readout__pairs__width=4), make_batch(SETS)
    exact = total(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = total(model, batch)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(loss.float(), exact, rtol=0.05, atol=0.0)


def test_layers_computed_again_give_the_same_loss_and_gradients():
    """Also with dropout, whose draws must be the same the second time."""
    found = []
    for again in (False, True):
        model = make(encoder__gradient_checkpointing=again, encoder__dropout=0.3)
        torch.manual_seed(1)
        loss = total(model, make_batch(SETS))
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_the_loss_falls_on_a_small_screen():
    effect = torch.randn(N, generator=torch.Generator().manual_seed(0))
    pairs = torch.combinations(torch.arange(N))[::2]
    y = effect[pairs].prod(1, keepdim=True)
    spec = make_spec(center=float(y.mean()), scale=float(y.std()))
    losses = fit(make(spec, graph_loss__weight=0.0), make_batch(pairs.tolist(), target=y), 30)
    assert losses[-1] < 0.5 * losses[0]


# The wild type, once ---------------------------------------------------------------------------------


def test_the_encoder_runs_once_a_step():
    model, batch = make(readout__pairs__width=4), make_batch(SETS)
    calls = count_encodings(model)
    for step in range(1, 3):
        total(model, batch).backward()
        assert len(calls) == step


def test_a_step_never_uses_the_encoding_of_weights_that_are_gone():
    model, batch = make(), make_batch(SETS)
    first = total(model, batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    fresh = make()
    fresh.load_state_dict(model.state_dict())
    assert not torch.isclose(total(model, batch), first)
    torch.testing.assert_close(total(model, batch), total(fresh, batch))


def test_evaluation_encodes_once_until_the_parameters_change():
    model, other, batch = make().eval(), make(seed=1).eval(), make_batch(SETS)
    calls = count_encodings(model)
    with torch.no_grad():
        before = model(batch)
        for part in (batch.narrow(0, 2), batch.narrow(2, 4)):
            model(part)
            model.diagnostics(part)
            model.set_embeddings(part)
            model.attended(part)
        model.gene_embeddings()
        model.eval()(batch)
        assert len(calls) == 1
        model.load_state_dict(other.state_dict())
        assert not torch.equal(model(batch), before)
        torch.testing.assert_close(model(batch), other(batch))
        assert len(calls) == 2
        model.embedding.table.weight[0] += 1
        model(batch)
        assert len(calls) == 3
        model.train()
        model.eval()
        model(batch)
        assert len(calls) == 4
    copy.deepcopy(model)


# What it makes of sets and genes ---------------------------------------------------------------------


def test_latents_have_names_and_a_row_a_set_or_gene():
    model = make(readout__pairs__width=6).eval()
    with torch.no_grad():
        sets, genes, cell = model.set_embeddings(make_batch(SETS)), model.gene_embeddings(), model.cell_embeddings()
        beta = model.attended(make_batch(SETS))
    assert {name: tuple(value.shape) for name, value in sets.items()} == {"z_S": (4, 32)}
    assert {name: tuple(value.shape) for name, value in genes.items()} == {"tokens": (N, 32), "pair_factors": (N, 6)}
    assert {name: tuple(value.shape) for name, value in cell.items()} == {"h_CLS": (32,)}
    assert list(make().eval().gene_embeddings()) == ["tokens"]
    torch.testing.assert_close(beta.sum(1), torch.ones(4))
    assert all(set(row.topk(len(each)).indices.tolist()) == set(each) for row, each in zip(beta, SETS, strict=True)
               if len(each) == 1)  # fmt: skip


def test_kinds_and_levels_enter():
    model = make(make_spec(kinds=("absent", "knockdown")), readout__levels=True).eval()
    with torch.no_grad():
        model.head.level_state.weight.normal_()
        absent, less, more = (
            model(make_batch(SETS, kind, level=torch.full((10,), level)))
            for kind, level in (("absent", 0.0), ("knockdown", 0.2), ("knockdown", 0.9))
        )
    for one, other in ((absent, less), (less, more)):
        assert not torch.isclose(one, other).any()
