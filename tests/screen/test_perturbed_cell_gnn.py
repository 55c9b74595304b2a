"""The network on the perturbed cell: what every model promises, and that representations share their weights."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from model_options import with_options

from tests.core.test_base import RANDOM, fit
from torchcell.graph.cell_graph import CellGraph, deleted_nodes
from torchcell.graph.network import GeneRules, Network
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationDataModule
from torchcell.screen.models.common import ImputationOptions
from torchcell.screen.models.dango import Dango
from torchcell.screen.models.perturbed_cell_gnn.model import PerturbedCellGNN
from torchcell.screen.models.perturbed_cell_gnn.options import EncoderOptions, NodeEmbeddingOptions
from torchcell.screen.simulate import simulated_networks, simulated_screen
from torchcell.screen.spec import ScreenSpec
from torchcell.screen.yeast_cell import yeast_cell_networks, yeast_gene_rules, yeast_genes
from torchcell.training.build import datamodule as assemble_data

FURTHER = [f"Q10|A{i}" for i in range(20, 40)]
"""Sets that fill up a split."""
FAST = functools.partial(torch.optim.AdamW, lr=0.01)


@pytest.fixture
def cell(ring) -> CellGraph:
    """The networks of ``pairs`` with two reactions that their genes catalyse."""
    ones = np.ones(4, dtype=np.float32)
    genes, reactions = np.array(["Q00", "Q01", "A00", "A01"]), np.array(["r1", "r1", "r2", "r2"])
    there = Network("catalyses", genes, reactions, ones, True, target_type="reaction")
    back = Network("catalysed_by", reactions, genes, ones, True, source_type="reaction")
    rules = GeneRules.parse("reaction", {"r1": "Q00 and Q01", "r2": "A00 or A01"})
    return CellGraph.from_networks([*ring, there, back], rules=rules)


@pytest.fixture
def module(pairs, cell) -> PerturbationDataModule:
    return PerturbationDataModule(pairs, RANDOM, cell, batch_size=64)


def batch_of(module: PerturbationDataModule, n: int = 6):
    return module.packed[torch.arange(n)]


def model_of(module: PerturbationDataModule, seed: int = 0, **choices) -> PerturbedCellGNN:
    torch.manual_seed(seed)
    small = {"encoder__dim": 8, "encoder__attention_heads": 2}
    return PerturbedCellGNN(module.spec, **with_options(PerturbedCellGNN, small | choices))


CHOICES = [
    {"messages__aggregation": "rgcn", "encoder__linear_readout": True},
    {"messages__aggregation": "sage", "messages__merge": "mean", "messages__degree": "true"},
    {"messages__aggregation": "gin", "messages__merge": "attention", "messages__degree": "sum"},
    {"messages__aggregation": "rgcn", "messages__merge": "pairwise"},
    {"messages__aggregation": "hgt"},
    {"readout__parts": ["local"]},
    {"readout__parts": ["global"]},
    {
        "embedding__spectral": 4,
        "embedding__decay": 1.0,
        "embedding__imputation__untrained_rate": 0.2,
        "embedding__imputation__neighbors": 5,
    },
    {"encoder__norm": "graph", "encoder__strategy": "tile"},
]


@pytest.mark.parametrize("hops", [None, 1, 2])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_parameter_gets_a_gradient_in_one_step(pairs, cell, choice, hops):
    module = PerturbationDataModule(pairs, RANDOM, cell, hops=hops)
    model = model_of(module, **choice)
    batch = batch_of(module, 60)
    terms = model.losses(batch, model(batch))
    torch.stack(list(terms.values())).sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_order_of_a_sets_members_changes_nothing_and_one_set_alone_is_a_batch(module, choice):
    model = model_of(module, **choice).eval()
    batch = batch_of(module)
    swapped = dataclasses.replace(batch, gene=batch.gene.view(-1, 2).flip(1).flatten())
    torch.testing.assert_close(model(batch), model(swapped), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(batch)[2:3], model(batch.narrow(2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("linear", [True, False])
def test_all_ways_to_compute_give_one_prediction(module, linear):
    predictions = []
    for way in ("tile", "hybrid", "delta"):
        model = model_of(module, encoder__strategy=way, encoder__linear_readout=linear).double().eval()
        predictions.append(model(batch_of(module)))
    torch.testing.assert_close(predictions[0], predictions[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(predictions[0], predictions[2], rtol=1e-9, atol=1e-9)


def test_no_parameter_knows_how_much_of_the_graph_is_seen(pairs, cell):
    shapes = []
    for hops in (None, 1, 2, 3):
        module = PerturbationDataModule(pairs, RANDOM, cell, hops=hops)
        model = model_of(module)
        shapes.append({name: parameter.shape for name, parameter in model.named_parameters()})
    assert all(shape == shapes[0] for shape in shapes)


def test_a_lost_reaction_changes_the_prediction_only_where_its_rule_is_false(cell, make_screen):
    """r1 needs both of Q00 and Q01; r2 lives while one of A00 and A01 does."""
    screen = make_screen(["Q00|A05", "A00|A05", "A00|A01", "Q03|A07", "A09|A10", *FURTHER])
    module = PerturbationDataModule(screen, RANDOM, cell)
    without = CellGraph.from_plain(cell.to_plain() | {"rules": None, "hash": _hash_without_rules(cell)})
    ruled, plain = (model_of(m) for m in (module, PerturbationDataModule(screen, RANDOM, without)))
    batch = batch_of(module, 5)
    lost = [m.lost(m.wild_type(), batch) for m in (ruled, plain)]
    same = torch.isclose(*lost, rtol=1e-5, atol=1e-6).all(1).tolist()
    assert same == [False, True, False, True, True]


def _hash_without_rules(cell: CellGraph) -> str:
    matrices = {name: cell.scipy(name) for name in cell.relations}
    nodes = {kind: cell.names(kind).tolist() for kind in cell.node_types if kind != "gene"}
    ends = {name: cell.ends(name) for name in cell.relations}
    return CellGraph(cell.genes.tolist(), matrices, cell.directed, nodes=nodes, ends=ends).hash


def test_a_sample_that_loses_every_gene_has_a_finite_prediction(cell, make_screen):
    everything = "|".join(cell.genes.tolist())
    module = PerturbationDataModule(make_screen([everything, "Q00|A00", *FURTHER]), RANDOM, cell)
    for hops in (None, 1):
        model = PerturbedCellGNN(dataclasses.replace(module.spec, hops=hops), encoder=EncoderOptions(dim=8))
        prediction = model(batch_of(module, 2))
        prediction.sum().backward()
        assert torch.isfinite(prediction).all()
        assert all(
            torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None
        )


def test_it_learns_what_only_the_networks_tell():
    """Pairs of held-out query genes on the simulated cell: more than nothing, from the graph alone."""
    split = {"method": "query_disjoint", "n_folds": 5, "fold": 0, "seed": 0}
    graph = CellGraph.from_networks(simulated_networks(seed=0))
    module = PerturbationDataModule(simulated_screen(seed=0), split, graph, batch_size=256)
    model = model_of(
        module,
        encoder__dim=32,
        encoder__linear_readout=True,
        embedding__spectral=8,
        embedding__decay=1.0,
        optimizer=FAST,
    )
    trainer = fit(model, module, epochs=6)
    assert float(trainer.callback_metrics["val/score"]) > 0.1


def test_oversmoothing_is_logged_for_wild_type_perturbed_and_difference(module):
    trainer = fit(model_of(module, optimizer=FAST), module)
    logged = {name for name in trainer.callback_metrics if name.startswith("val_sample/")}
    assert logged == {
        f"val_sample/{measure}_{z}" for measure in ("oversmoothing", "effective_rank") for z in ("z_w", "z_p", "z_d")
    }


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"messages__relations": ["rnig"]}, "no relation 'rnig'.*ring"),
        ({"messages__relations": []}, "at least one relation"),
        ({"readout__parts": ["locl"]}, "choose local, global or both"),
        ({"messages__degree": "mean"}, "model.messages.degree='mean'"),
        ({"encoder__strategy": "fast"}, "model.encoder.strategy='fast'"),
        ({"encoder__norm": "batch", "encoder__strategy": "delta"}, "not exact with BatchNorm"),
        ({"messages__aggregation": "gat"}, "aggregation='gat'"),
        ({"messages__aggregation": "hgt", "encoder__norm": "graph"}, "hgt has one softmax.*norm=graph"),
        ({"messages__aggregation": "hgt", "messages__merge": "mean"}, "hgt has one softmax.*merge=mean"),
    ],
)
def test_what_does_not_go_together_is_refused(module, choice, said):
    with pytest.raises(InputError, match=said):
        model_of(module, **choice)


def test_no_graph_and_kinds_that_are_no_deletions_are_refused(pairs, cell):
    with pytest.raises(InputError, match="needs a cell"):
        model_of(PerturbationDataModule(pairs, RANDOM))
    kinds = pairs.kind.copy()
    kinds[::2] += 1
    module = PerturbationDataModule(dataclasses.replace(pairs, kind=kinds), RANDOM, cell)
    with pytest.raises(InputError, match="takes genes out of a graph.*model=dango"):
        model_of(module)


def test_kinds_that_are_no_deletions_are_refused_in_a_request_too(module):
    model, batch = model_of(module).eval(), batch_of(module)
    with pytest.raises(InputError, match="takes genes out of a graph, and knows no '"):
        model(dataclasses.replace(batch, kind=batch.kind + 1))


def test_a_model_that_sees_no_neighborhoods_refuses_hops(pairs, cell):
    with pytest.raises(InputError, match=r"data\.hops=2: Dango does not look"):
        Dango(PerturbationDataModule(pairs, RANDOM, cell, hops=2).spec)


def test_hops_are_counted_along_the_models_own_relations(pairs, cell):
    module = PerturbationDataModule(pairs, RANDOM, cell, hops=1)
    few = model_of(module, messages__relations=["ring"]).sample_size(batch_of(module))
    all_of_them = model_of(module).sample_size(batch_of(module))
    assert few[0] <= 6 < all_of_them[0]  # two genes and their neighbors on the ring; the star reaches everyone


def test_an_edge_of_weight_zero_is_left_out_and_harms_nobody(pairs, ring):
    weight = ring[0].weight.copy()
    weight[::2] = 0
    graph = CellGraph.from_networks([dataclasses.replace(ring[0], weight=weight), ring[1]])
    assert graph.dropped == {"ring: edges of weight 0": 40}
    module = PerturbationDataModule(pairs, RANDOM, graph)
    assert torch.isfinite(model_of(module).eval()(batch_of(module, 60))).all()


def test_a_checkpoint_alone_predicts_what_the_model_does(pairs, cell, tmp_path, monkeypatch):
    """With hops, gene rules, borrowed embeddings and fixed features; where no cache can be written."""
    module = PerturbationDataModule(pairs, RANDOM, cell, hops=1)
    model = model_of(module, embedding__spectral=4, embedding__imputation__neighbors=5).eval()
    torch.save({"spec": module.spec.to_plain(), "state": model.state_dict()}, tmp_path / "model.pt")
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "model.pt" / "no folder"))
    held = torch.load(tmp_path / "model.pt", weights_only=True)
    embedding = NodeEmbeddingOptions(spectral=4, imputation=ImputationOptions(neighbors=5))
    again = PerturbedCellGNN(
        ScreenSpec.from_plain(held["spec"]), encoder=EncoderOptions(dim=8, attention_heads=2), embedding=embedding
    )
    again.load_state_dict(held["state"])
    torch.testing.assert_close(again.eval()(batch_of(module)), model(batch_of(module)))


@pytest.mark.parametrize("hops", [0, 4, "1"])
def test_a_number_of_hops_that_is_not_supported_is_refused(pairs, cell, hops):
    with pytest.raises(InputError, match=r"1, 2, 3 hops"):
        PerturbationDataModule(pairs, RANDOM, cell, hops=hops)


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "low", "high"), [("perturbed_cell_gnn", 0.2e6, 0.3e6), ("perturbed_cell_gnn_large", 1.7e6, 1.9e6)]
)
def test_presets_have_the_size_they_say_on_the_yeast_cell(mirror, name, low, high):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from torchcell.training.entry import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", ["data=costanzo2010", "graph=yeast", f"model={name}", "data.subset=200"])
    data = assemble_data(cfg)
    model = instantiate(cfg.model, _partial_=True)(spec=data.spec)
    assert low < sum(parameter.numel() for parameter in model.parameters()) < high


@pytest.mark.mirror
def test_the_metabolic_cell_of_yeast_is_read_by_hgt_within_one_hop(mirror, make_screen):
    graph = CellGraph.from_networks(yeast_cell_networks(), yeast_genes(), rules=yeast_gene_rules())
    screen = make_screen(["YDL174C|YEL039C", "YAL002W|YBR200W", *(f"YAL002W|{gene}" for gene in yeast_genes()[:9])])
    module = PerturbationDataModule(screen, RANDOM, graph, hops=1)
    model = model_of(module, messages__aggregation="hgt", encoder__dim=16, encoder__attention_heads=1)
    batch = batch_of(module, 2)
    model(batch).sum().backward()
    nodes, edges = model.sample_size(batch)
    assert 10 < nodes < graph.n_nodes / 2
    assert nodes < edges < sum(graph.n_edges(relation) for relation in graph.relations)


def test_latents_are_what_the_heads_read(module):
    """The cell is the sum over its nodes, and the difference of a set is the cell's minus the perturbed cell's."""
    model, batch = model_of(module).eval(), batch_of(module)
    with torch.no_grad():
        latents, genes = model.set_embeddings(batch), model.gene_embeddings()["wild_type"]
        wild = model.wild_type()
        node_K, ptr_P = deleted_nodes(model.graph, batch.gene, batch.ptr)
        left = [model.cell.perturbed(wild, node_K[a:b]).sum(0) for a, b in itertools.pairwise(ptr_P)]
        whole = model.cell_embeddings()["wild_type"]
    assert list(latents) == ["difference", "members"]
    torch.testing.assert_close(latents["difference"], whole - torch.stack(left), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(latents["members"], genes[batch.gene.view(-1, 2)].mean(1))
    assert len(genes) == len(module.spec.genes) < len(wild.x[-1]), "reactions are nodes, but no genes"


def test_a_head_that_is_not_there_has_no_latent(module):
    batch = batch_of(module)
    for head, name in (("local", "members"), ("global", "difference")):
        assert list(model_of(module, readout__parts=[head]).eval().set_embeddings(batch)) == [name]


def test_the_latent_of_a_kind_that_the_model_cannot_read_is_refused(module):
    batch = dataclasses.replace(batch_of(module), kind=torch.ones_like(batch_of(module).kind))
    with pytest.raises(InputError, match="present"):
        model_of(module).eval().set_embeddings(batch)
