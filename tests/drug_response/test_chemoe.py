"""CheMoE: published counts, gradients, heads, routing choices, usage, and what it learns on planted effects."""

from __future__ import annotations

import dataclasses
import io
from types import SimpleNamespace

import pytest
import torch
from test_config import composed

from tests.drug_response.small_responses import (
    LINES,
    as_request,
    correlation,
    dead_parameters,
    planted,
    response_batch,
    response_spec,
    total,
    train,
)
from torchcell.drug_response.datamodule import ResponseBatch
from torchcell.drug_response.models.base import GeneOptions, InputOptions, LineOptions, MoleculeOptions
from torchcell.drug_response.models.chemoe.model import CheMoE, CheMoEPublished, ExpertOptions, RouterOptions
from torchcell.drug_response.molecules import pack_graphs
from torchcell.drug_response.spec import PackedGraphs
from torchcell.io.errors import InputError
from torchcell.training.checkpoint import built

SMALL = {
    "inputs": InputOptions(width=16, hidden=24),
    "expert": ExpertOptions(hidden=(16, 8)),
    "genes": GeneOptions(width=16),
}


def configured(name, spec, **changes) -> CheMoE:
    overrides = [f"model.{key}={value}" for key, value in changes.items()]
    return built(composed(f"model={name}", *overrides).model, spec)


SMILES = ["CCO", "c1ccccc1", "CC(=O)N", "", "CCN", "C", "CCCl", "CO", "N", "CC", "OCCO", "CNC"]


def with_graphs(spec):
    graphs = PackedGraphs(**{name: torch.from_numpy(values) for name, values in pack_graphs(SMILES).items()})
    held = dataclasses.replace(spec.molecules, graphs=graphs, smiles=tuple(SMILES))
    return dataclasses.replace(spec, molecules=held)


@pytest.mark.parametrize(("width", "count"), [(2304, 5_484_424), (1024, 5_156_744)])
def test_the_published_preset_has_the_published_number_of_parameters(width, count):
    spec = response_spec(genes=10_716, drugs=3, features=width, lines=10)
    model = configured("chemoe_published", spec)
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_published_preset_decays_every_parameter_and_adds_decay_to_the_gradient():
    model = configured("chemoe_published", response_spec())
    (optimizer,), _ = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert not isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 1e-3
    assert len(group["params"]) == len(list(model.parameters()))


def test_the_default_decays_no_embedding():
    model = configured("chemoe", response_spec())
    kept = {id(p) for p in model.parameter_groups()[1]["params"]}
    assert {
        id(model.gene_embedding.weight),
        id(model.inputs.line_embedding.weight),
        id(model.control_shrinkage),
        id(model.plate_shrinkage),
    } <= kept


PRODUCT = SMALL | {"expert": ExpertOptions(hidden=(16, 8), product=6)}


@pytest.mark.parametrize("choice", ["top_k", "dense", "uniform", "hash"])
def test_every_parameter_gets_a_gradient_in_one_step(choice):
    known = [True] * 11 + [False]
    spec = response_spec(known=known)
    torch.manual_seed(0)  # near-even routing leaves an expert without samples now and then
    model, batch = CheMoE(spec, router=RouterOptions(choice=choice), **PRODUCT), response_batch(spec, 64)
    batch = dataclasses.replace(batch, line=torch.where(torch.arange(64) < 5, -1, batch.line))
    assert dead_parameters(model, batch) == []


def test_an_expert_without_samples_still_takes_part():
    """DDP waits for the gradient of every parameter."""
    spec = response_spec()
    model = CheMoE(spec, router=RouterOptions(choice="hash", top_k=1), **PRODUCT)
    total(model, response_batch(spec, 8, drug=0)).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_reading_of_zero_is_the_control_and_the_mean_change_or_the_mean_of_a_known_plate(mode):
    spec = response_spec()
    model, batch, nothing = getattr(CheMoE(spec, **SMALL), mode)(), response_batch(spec, 4), torch.zeros(4, 20)
    control, treated = (getattr(spec, name)[batch.line] for name in ("line_control", "line_treated"))
    alone = batch.input_control + treated - control
    torch.testing.assert_close(model.express(nothing, as_request(batch)), alone)
    q = torch.tensor(2.2).sigmoid()  # nine tenths
    beside = 0.5 * (batch.input_control + control) + treated - control
    torch.testing.assert_close(model.express(nothing, batch), (1 - q) * beside + q * batch.plate_mean)
    elsewhere = dataclasses.replace(as_request(batch), line=torch.full((4,), -1))
    torch.testing.assert_close(model.express(nothing, elsewhere), batch.input_control + spec.change_center)


def test_what_a_score_is_centered_on_is_no_input():
    spec = response_spec()
    model, batch = CheMoE(spec, **SMALL).eval(), response_batch(spec, 6)
    other = dataclasses.replace(batch, eval_center=batch.eval_center + 1)
    torch.testing.assert_close(model(other), model(batch))
    assert batch.input_controls["plate"] is batch.eval_center


def validated(model: CheMoE, batch: ResponseBatch, target: torch.Tensor) -> tuple[float, float]:
    """The stacking weights after two passes over one batch; the second goes by those of the first."""
    model._trainer = SimpleNamespace(
        strategy=SimpleNamespace(reduce=lambda x, reduce_op: x), sanity_checking=False, world_size=1
    )
    model.log = model.log_dict = lambda *args, **options: None
    for _ in range(2):
        model.validation_step(dataclasses.replace(batch, target=target), 0)
        model.on_validation_epoch_end()
    return float(model.stacking.network), float(model.stacking.prior)


def test_validation_weighs_the_network_and_the_prior_by_least_squares():
    """Without it an overfitted network made the squared error of unseen drugs worse than that of the plate's mean."""
    spec = response_spec()
    alone, batch = CheMoE(spec, **SMALL).eval(), response_batch(spec, 8)
    start, whole = alone.starting_point(batch).detach(), alone(batch).detach()
    assert validated(alone, batch, start + 0.4 * (whole - start)) == pytest.approx((0.4, 0), abs=1e-3)
    alone.training = True  # of the model alone: no dropout
    torch.testing.assert_close(alone(batch), whole)

    model = CheMoE(spec, **SMALL).eval()
    model.load_state_dict(alone.state_dict() | {"stacking.network": torch.ones(()), "stacking.prior": torch.ones(())})
    model.take_prior(averaged=True)
    departure = torch.randn(8, 20, generator=torch.Generator().manual_seed(3))
    batch = dataclasses.replace(batch, prior=start + departure)

    def target(a: float, b: float) -> torch.Tensor:
        values = start + a * (whole - start) + b * departure
        values[0, 0] = torch.nan
        return values

    assert validated(model, batch, target(0.3, 0.7)) == pytest.approx((0.3, 0.7), abs=1e-3)
    expected = start + 0.3 * (whole - start) + 0.7 * departure
    torch.testing.assert_close(model(batch), expected, atol=1e-3, rtol=1e-3)
    silent = dataclasses.replace(batch, prior=torch.full_like(start, torch.nan))
    torch.testing.assert_close(model(silent), start + 0.3 * (whole - start), atol=1e-3, rtol=1e-3)
    assert validated(model, batch, target(9, 9)) == (1.5, 1.5)
    assert validated(model, batch, target(-1, -1)) == (0, 0)
    torch.testing.assert_close(model(batch), start)
    model.training = True
    torch.testing.assert_close(model(batch), whole)


def test_errors_are_weighed_in_units_of_a_change_not_of_a_level():
    """A gene that differs between cell lines, and not by drugs, would else hardly count."""
    spec = response_spec()
    spec = dataclasses.replace(spec, scale=spec.scale * torch.logspace(-2, 2, 20))
    model, batch = CheMoE(spec, **SMALL).eval(), response_batch(spec, 8)
    plain = CheMoE(dataclasses.replace(spec, scale=torch.ones(20)), **SMALL).eval()
    plain.load_state_dict(model.state_dict())
    assert validated(model, batch, batch.target) == validated(plain, batch, batch.target)


def test_an_unknown_line_is_decoder_its_learned_vector_and_refused_without_one():
    spec = response_spec()
    batch = response_batch(spec, 4, line=-1)
    assert torch.isfinite(CheMoE(spec, **SMALL).eval()(batch)).all()
    bare = CheMoE(spec, inputs=InputOptions(width=16, unknown=False))
    with pytest.raises(InputError, match="not trained on"):
        bare(batch)


def test_molecules_without_a_vector_share_one():
    spec = response_spec(known=[False, False] + [True] * 10)
    model = CheMoE(spec, **SMALL).eval()
    batch = response_batch(spec, 1, drug=0)
    torch.testing.assert_close(model(batch), model(dataclasses.replace(batch, drug=torch.ones_like(batch.drug))))
    assert not torch.allclose(model(batch), model(dataclasses.replace(batch, drug=torch.full_like(batch.drug, 5))))
    with pytest.raises(InputError, match="'drug0', 'drug1'.*unknown=true"):
        CheMoE(spec, inputs=InputOptions(unknown=False))


def test_terms_of_the_router_are_zero_where_it_learns_nothing():
    spec = response_spec()
    batch = response_batch(spec)
    terms = {
        choice: _terms(CheMoE(spec, router=RouterOptions(choice=choice), **SMALL), batch)
        for choice in ("top_k", "uniform", "hash")
    }
    assert list(terms["top_k"]) == ["phenotype", "correlation", "plate", "balance", "z"]
    assert terms["top_k"]["balance"] == pytest.approx(1.0, abs=0.1)
    assert terms["uniform"]["balance"] == terms["hash"]["z"] == 0


def _terms(model, batch):
    return {name: float(term.detach()) for name, term in model.losses(batch, model(batch)).items()}


def test_missing_values_and_plates_without_a_center_are_left_out():
    spec = response_spec()
    model, batch = CheMoE(spec, **SMALL), response_batch(spec)
    target = batch.target.clone()
    target[:, :3] = torch.nan
    terms = _terms(model, dataclasses.replace(batch, target=target, eval_center=torch.full_like(target, torch.nan)))
    assert terms["plate"] == 0
    assert all(torch.isfinite(torch.tensor(list(terms.values()))))


def test_usage_is_counted_over_the_epoch_and_kept_in_the_checkpoint():
    spec = response_spec()
    model = CheMoE(spec, **SMALL)
    for seed in (1, 2):
        total(model, response_batch(spec, 10, seed=seed))
    assert model.usage.close()
    assert float(model.usage.line_EL.sum()) == pytest.approx(20)
    assert float(model.usage.dose_EQ.sum()) == pytest.approx(20)
    other = CheMoE(spec, **SMALL)
    other.load_state_dict(model.state_dict())
    (section,) = other.report_sections(None)
    assert "Entropy" in section.text
    assert list(section.table.columns[2:5]) == LINES
    assert section.table[LINES].sum().tolist() == pytest.approx([1, 1, 1], abs=2e-3)


def test_usage_of_a_half_epoch_goes_on_where_it_stopped():
    """A run that was preempted after 20 samples counted the last 10 alone, and was judged by them."""
    spec = response_spec()
    model, other = (CheMoE(spec, **SMALL) for _ in range(2))
    for seed in (1, 2):
        total(model, response_batch(spec, 10, seed=seed))
    half = io.BytesIO()
    torch.save(model.epoch_state(), half)
    half.seek(0)
    other.load_state_dict(model.state_dict())
    other.load_epoch_state(torch.load(half, weights_only=True))
    for one in (model, other):
        torch.manual_seed(0)  # the same units dropped
        total(one, response_batch(spec, 10, seed=3))
        assert one.usage.close()
    assert float(other.usage.line_EL.sum()) == pytest.approx(30)
    torch.testing.assert_close(other.usage.line_EL, model.usage.line_EL)
    torch.testing.assert_close(other.usage.dose_EQ, model.usage.dose_EQ)
    assert CheMoE(spec, **SMALL).epoch_state()["usage"] is None, "nothing counted yet"


def test_hashing_depends_on_the_drugs_name_alone():
    spec = response_spec()
    molecules = spec.molecules
    order = torch.arange(11, -1, -1)
    turned = dataclasses.replace(molecules, id=molecules.id[::-1], vectors=molecules.vectors[order])
    other = dataclasses.replace(spec, molecules=turned)
    one, two = (CheMoE(each, router=RouterOptions(choice="hash"), **SMALL).eval() for each in (spec, other))
    two.load_state_dict(one.state_dict())
    batch = response_batch(spec)
    torch.testing.assert_close(one(batch), two(dataclasses.replace(batch, drug=11 - batch.drug)))


def test_genes_look_at_atoms_of_a_graph_and_molecules_without_atoms_are_read_too():
    spec = with_graphs(response_spec())
    small = SMALL | {
        "inputs": InputOptions(width=16, hidden=24, molecule=MoleculeOptions(encoder="graph")),
        "atom_heads": 2,
    }
    model, batch = CheMoE(spec, **small, router=RouterOptions(choice="dense")), response_batch(spec, 64)
    batch = dataclasses.replace(batch, line=torch.where(torch.arange(64) < 5, -1, batch.line))
    assert dead_parameters(model, batch) == []
    with torch.no_grad():
        model.eval()
        alone = torch.cat([model(batch.narrow(i, i + 1)) for i in range(16)])
        torch.testing.assert_close(alone, model(batch)[:16])
        assert torch.isfinite(model(response_batch(spec, 2, drug=3))).all()


def test_graphs_that_are_not_there_are_asked_for():
    with pytest.raises(InputError, match="MoleculeGraphs"):
        CheMoE(response_spec(), inputs=InputOptions(molecule=MoleculeOptions(encoder="graph")))
    with pytest.raises(InputError, match="inputs.molecule.encoder=graph"):
        CheMoE(response_spec(), atom_heads=2, **SMALL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RouterOptions(choice="topk"), "model.router.choice='topk' is one of top_k, dense"),
        (lambda: RouterOptions(top_k=5), "model.router.top_k=5 is at most model.router.count=4"),
        (lambda: RouterOptions(count=0, choice="all"), "router.choice='all' is .*; model.router.count=0 is 1 or more"),
        (lambda: ExpertOptions(hidden=(8,)), r"model.expert.hidden=\[8\] is two widths"),
        (lambda: ExpertOptions(dropout=1.0), "model.expert.dropout=1.0 is 0 or more and less than 1"),
        (lambda: GeneOptions(width=0), "model.genes.width=0 is 1 or more"),
        (lambda: InputOptions(basal="mean"), "model.inputs.basal='mean' is one of change, raw, none"),
        (lambda: MoleculeOptions(encoder="smiles"), "model.inputs.molecule.encoder='smiles' is one of vectors, graph"),
        (lambda: LineOptions(unknown_rate=-1), "model.inputs.line.unknown_rate=-1 is 0 or more"),
        (lambda: CheMoE(response_spec(), router="dense", **SMALL), "model.router.choice=dense since torchcell 0.2"),
        (lambda: CheMoE(response_spec(), head="delta", **SMALL), "choose one of"),
        (lambda: CheMoE(response_spec(), head="process", **SMALL), "prior=gaussian_process model.prior_use=average"),
    ],
)
def test_a_value_that_can_not_be_is_named_with_its_key(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_options_in_python_are_those_of_the_command_line():
    spec = response_spec()
    of_config = configured("chemoe_small", spec, **{"router.count": 8, "router.top_k": 1, "genes.width": 16})
    inputs = InputOptions(molecule=MoleculeOptions(dropout=0.1, unknown_rate=0.1), line=LineOptions(unknown_rate=0.05))
    expert = ExpertOptions(hidden=(16, 8), dropout=0.3, product=256)
    made = CheMoE(
        spec, inputs=inputs, router=RouterOptions(count=8, top_k=1), expert=expert, genes=GeneOptions(width=16)
    )
    assert repr(made) == repr(of_config)
    assert {name: one.shape for name, one in made.state_dict().items()} == {
        name: one.shape for name, one in of_config.state_dict().items()
    }


def test_the_published_class_is_the_published_preset():
    spec = response_spec()
    made, of_config = CheMoEPublished(spec), configured("chemoe_published", spec)
    assert repr(made) == repr(of_config)
    assert made.head == of_config.head == "level"
    assert made.gain == of_config.gain == 1.0


def test_a_step_runs_under_mixed_precision():
    spec = response_spec()
    model = CheMoE(spec, **SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total(model, response_batch(spec)).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_learns_planted_effects_of_drug_and_line_better_than_the_mean_change():
    torch.manual_seed(0)
    spec = response_spec(drugs=40)
    model = CheMoE(spec, **SMALL)
    seen, held_out = (planted(spec, response_batch(spec, 200, seed=seed)) for seed in (3, 4))
    train(model, seen)
    predicted, mean = correlation(model, held_out)
    assert predicted > 0.65 > mean + 0.3  # plates say nothing here, which q starts far from


def test_coupled_decay_drives_the_gene_vectors_to_zero_and_the_default_does_not():
    """The published collapse: without gamma no gene differs from another, whatever the loss does."""
    torch.manual_seed(0)
    spec = response_spec()
    batch, size = planted(spec, response_batch(spec, 40, seed=3)), {}
    genes = GeneOptions(width=16, sd=0.02, gain=1.0)
    for name, cls, kind in (("weights", CheMoE, torch.optim.AdamW), ("all", CheMoEPublished, torch.optim.Adam)):
        model = cls(spec, **SMALL | {"head": "level", "genes": genes})
        optimizer = kind(model.parameter_groups(), lr=3e-3, weight_decay=0.3)
        for _ in range(30):
            optimizer.zero_grad()
            model.losses(batch, model(batch))["phenotype"].backward()
            optimizer.step()
        size[name] = float(model.gene_embedding.weight.detach().std())
    assert size["all"] < 0.005 < 0.02 < size["weights"]
