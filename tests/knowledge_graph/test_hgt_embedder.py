"""HGT embeddings: gradients, links taken out of a step, sampling, diagnostics, and what is learned on planted paths."""

from __future__ import annotations

import copy
import dataclasses
import math

import lightning
import numpy as np
import pytest
import torch

from torchcell.io.errors import InputError
from torchcell.knowledge_graph.datamodule import LinkBatch, LinkDataModule, LinkRanking
from torchcell.knowledge_graph.embedding_health import TrainingBounds
from torchcell.knowledge_graph.models.hgt_embedder.model import (
    ConstantInputHGT,
    DecoderOptions,
    EncoderOptions,
    HGTEmbedder,
    LossOptions,
    SamplingOptions,
)
from torchcell.knowledge_graph.record import link_samples
from torchcell.knowledge_graph.simulate import simulate_knowledge_graph, simulated_links
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.training.predict import predict_record

GRAPH = simulate_knowledge_graph(n_genes=60, n_compounds=30, n_diseases=20, n_communities=4, seed=1).graph
NODES = TypedGraph.from_knowledge_graph(GRAPH)
SMALL = {
    "encoder.embedding_dim": 24,
    "encoder.dim": 32,
    "encoder.heads": 2,
    "sampling.edges": 60,
    "sampling.negatives": 8,
}
GROUPS = {"encoder": EncoderOptions, "decoder": DecoderOptions, "sampling": SamplingOptions, "losses": LossOptions}


def made(spec: KnowledgeGraphSpec, kind: type[HGTEmbedder] = HGTEmbedder, **options) -> HGTEmbedder:
    """A small model; options by their dotted names."""
    groups: dict[str, dict] = {name: {} for name in GROUPS}
    for key, value in (SMALL | options).items():
        group, _, name = key.partition(".")
        groups[group][name] = value
    return kind(spec, **{name: GROUPS[name](**values) for name, values in groups.items()})


def make_spec(nodes: TypedGraph = NODES, supervised=("CtD",)) -> KnowledgeGraphSpec:
    outputs = tuple(f"{name}_{node_type}" for name in supervised for node_type in ("matched", "uniform"))
    own = {"knowledge_graph": nodes.to_plain(), "supervised": tuple(supervised)}
    zero, one = torch.zeros(len(outputs)), torch.ones(len(outputs))
    return KnowledgeGraphSpec("binary", outputs, (), (), zero, one, None, "hash", **own)


def make_batch(supervised=("CtD",), nodes: TypedGraph = NODES, seed=0) -> LinkBatch:
    links = link_samples(GRAPH, list(supervised), seed=seed)
    place = torch.from_numpy(nodes.from_record)
    code = torch.tensor([nodes.edge_types.index(name) for name in links.edge_type.tolist()])
    source, target = (place[torch.from_numpy(index)] for index in (links.source_index, links.target_index))
    return LinkBatch(torch.from_numpy(links.label), torch.arange(len(links)), source, target, code)


def total(model: HGTEmbedder, batch: LinkBatch) -> torch.Tensor:
    return torch.stack(list(model.losses(batch, model(batch)).values())).sum()


def part(batch: LinkBatch, index: torch.Tensor) -> LinkBatch:
    return LinkBatch(
        **{f.name: value[index] for f in dataclasses.fields(batch) if (value := getattr(batch, f.name)) is not None}
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"supervised": ("CtD", "GiG"), "losses.links": "bce", "encoder.jump": True, "losses.variance": True},
        {"sampling.fan_outs": [3, 3], "encoder.recompute": True, "encoder.degrees": False},
    ],
    ids=str,
)
def test_every_parameter_gets_a_gradient_in_one_step(options):
    supervised = options.pop("supervised", ("CtD",))
    model = made(make_spec(supervised=supervised), **options)
    total(model, part(make_batch(supervised), torch.arange(0, 80, 3))).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_the_links_of_a_step_are_read_nowhere_in_it():
    """With the asked links in the messages a model learns to read them off, and knows nothing of any other."""
    model, batch = made(make_spec(), **{"encoder.dropout": 0.0}), make_batch()
    few = part(batch, torch.arange(len(batch))[::4])
    seen = {}
    without = model.step_graph.without

    def spy(code, number, node):
        seen.update(code=code, number=number)
        return without(code, number, node)

    model.step_graph.without = spy
    model(few)
    ends = {name: NODES.edges(name) for name in NODES.edge_types}
    gone = {
        (code, int(ends[NODES.edge_types[code]][0][number]), int(ends[NODES.edge_types[code]][1][number]))
        for code, number in zip(seen["code"].tolist(), seen["number"].tolist(), strict=True)
    }
    positive = (few.target == 1).any(1)
    asked = zip(*(each[positive].tolist() for each in (few.edge_type, few.source_node, few.target_node)), strict=True)
    assert set(asked) <= gone
    drawn = model._drawn
    linked = {(d.code, i, j) for d in drawn.links for i, j in zip(d.source.tolist(), d.target.tolist(), strict=True)}
    assert linked <= gone
    assert len(linked) >= 55


def test_the_columns_are_one_number_and_a_batch_of_one_works():
    model, batch = made(make_spec()).eval(), make_batch()
    with torch.no_grad():
        whole = model(batch)
        alone = torch.cat([model(part(batch, torch.tensor([i]))) for i in range(5)])
    assert whole.shape == (len(batch), 2)
    assert torch.equal(whole[:, 0], whole[:, 1])
    torch.testing.assert_close(alone, whole[:5])
    model.train()
    total(model, part(batch, torch.tensor([0]))).backward()


def test_evaluation_encodes_once(monkeypatch):
    model, batch = made(make_spec()).eval(), make_batch()
    encode, calls = model.encode, []
    monkeypatch.setattr(model, "encode", lambda: calls.append(1) or encode())
    with torch.no_grad():
        model(batch), model(batch)
    assert len(calls) == 1
    copy.deepcopy(model)


def test_node_embeddings_are_the_final_vectors_whatever_the_mode():
    model = made(make_spec())
    z_ND = model.node_embeddings()
    assert model.training
    assert z_ND.shape == (len(NODES), 32)
    assert not z_ND.requires_grad
    assert torch.equal(z_ND, model.eval().node_embeddings())
    batch = make_batch()
    with torch.no_grad():
        ends = (z_ND[batch.source_node], z_ND[batch.target_node], batch.edge_type, batch.source_node, batch.target_node)
        torch.testing.assert_close(model(batch)[:, 0], model.decoder(*ends))


def test_link_bce_is_two_ln_two_at_constant_scores():
    model, batch = made(make_spec()).eval(), make_batch()
    for parameter in model.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    assert math.isclose(model.diagnostics(batch)["link_bce"].item(), 2 * math.log(2), rel_tol=1e-6)
    assert model.diagnostics(part(batch, torch.tensor([0, 1]))) == {}  # no negatives, nothing to say


def test_terms_follow_the_choices():
    batch = make_batch()
    named = {
        "phenotype target link contrastive": {},
        "phenotype target contrastive": {"sampling.edges": 0},
        "phenotype target link variance": {"losses.similar_types": [], "losses.variance": True},
    }
    for names, options in named.items():
        model = made(make_spec(), **options)
        assert list(model.losses(batch, model(batch))) == names.split()


def test_the_same_seed_gives_the_same_step():
    found = []
    for seed in (5, 5, 6):
        torch.manual_seed(0)
        model = made(make_spec(), **{"sampling.fan_outs": [4, 4]})
        torch.manual_seed(seed)
        found.append(total(model, make_batch()).item())
    assert found[0] == found[1] != found[2]


def test_sampled_steps_with_wide_fans_equal_whole_ones():
    terms = []
    for fan_outs in (None, [10_000, 10_000]):
        torch.manual_seed(0)
        model = made(make_spec(), **{"encoder.dropout": 0.0, "sampling.fan_outs": fan_outs})
        batch = make_batch()
        torch.manual_seed(1)
        terms.append(model.losses(batch, model(batch)))
    torch.testing.assert_close(*terms)


def test_the_watched_score_sees_ranks_which_are_those_of_the_evaluator_without_test_edges():
    """AUROC alone is flat long before the true disease has come to the top; nothing may know of test edges here."""
    record = simulated_links("CtD", n_genes=60, n_compounds=30, n_diseases=20, n_communities=4)
    data = LinkDataModule(record, {"method": "edges", "n_folds": 5}, batch_size=64, eval_batch_size=50)
    model = made(data.spec)
    model.optimizer = torch.optim.AdamW
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=1, num_sanity_val_steps=0, enable_model_summary=False, **quiet)
    trainer.fit(model, data)
    seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
    test = data.record("test")
    untold = record.graph.subset(~np.isin(record.graph.sample_id, test.sample_id[test.positive]))
    ranking = LinkRanking(data.record("val"), untold, None)
    ranks = ranking.ranks("CtD", predict_record(model, data, ranking.record("CtD"), "cpu"))
    for k, end in enumerate(("tail", "head")):
        assert seen[f"val/CtD_{end}/MRR"] == pytest.approx(np.mean(1 / ranks[:, k]), rel=1e-5)
    four = ["CtD_matched/AUROC", "CtD_uniform/AUROC", "CtD_tail/MRR", "CtD_head/MRR"]
    assert seen["val/score"] == pytest.approx(np.mean([seen[f"val/{name}"] for name in four]), rel=1e-5)


def test_bounds_of_health_are_chosen_by_name():
    assert made(make_spec()).health == TrainingBounds()
    assert made(make_spec(), **{"encoder.health": TrainingBounds(rank=0.1)}).health == TrainingBounds(rank=0.1)
    with pytest.raises(InputError, match="model.encoder.health.cosine=1.5"):
        TrainingBounds(cosine=1.5)


def test_a_model_needs_no_options_and_constant_inputs_are_another_class():
    assert HGTEmbedder(make_spec()).encoder.embedding.weight.shape == (len(NODES), 512)
    constant = made(make_spec(), ConstantInputHGT)
    assert constant.encoder.embedding.weight.shape == (len(NODES.node_types), 24)
    total(constant, make_batch()).backward()


def test_bad_choices_are_refused():
    with pytest.raises(InputError, match=r"model.losses.similar_types.*'Diseas', 'Gen'.*Disease"):
        made(make_spec(), **{"losses.similar_types": ["Diseas", "Gen"]})
    with pytest.raises(InputError, match="one number a layer"):
        made(make_spec(), **{"sampling.fan_outs": [4]})
    for options, said in (
        ({"losses.links": "hinge"}, "model.losses.links is 'bce' or 'softmax', not 'hinge'"),
        ({"losses.temperature": 0}, "model.losses.temperature=0 must be above 0"),
        ({"sampling.edge_fraction": 2}, "model.sampling.edge_fraction=2: must lie in 0 to 1"),
        ({"sampling.fan_outs": [4, 0]}, r"model.sampling.fan_outs\[1\]=0: must be 1 or more"),
    ):
        with pytest.raises(InputError, match=said):
            made(make_spec(), **options)
    edges = {name: tuple(end.numpy() for end in NODES.edges(name)) for name in NODES.edge_types if name != "CtD"}
    bare = TypedGraph(
        NODES.node_id,
        NODES.node_name,
        NODES.node_types,
        NODES.bounds,
        NODES.ends,
        edges,
        NODES.symmetric,
        NODES.from_record,
    )
    with pytest.raises(InputError, match=r"no edges of .*CtD"):
        made(make_spec(bare))


def test_finds_planted_paths_that_it_was_not_shown():
    """Held-out CtD edges lie on compound - gene - disease paths, and matched negatives have the same degrees."""
    torch.manual_seed(0)
    links = link_samples(GRAPH, "CtD", seed=3)
    batch = make_batch(seed=3)
    held = torch.from_numpy(np.random.default_rng(0).random(len(links)) < 0.25)
    positive = torch.from_numpy(links.positive) & held
    out = set(links.sample_id[positive.numpy()].tolist())
    shown = GRAPH.subset(~np.isin(GRAPH.sample_id, list(out)))
    nodes = TypedGraph.from_knowledge_graph(shown)
    assert (nodes.from_record == NODES.from_record).all()
    model = made(make_spec(nodes), **{"losses.similar_types": []})
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    train = (~held).nonzero()[:, 0]
    for step in range(30):
        optimizer.zero_grad()
        total(model, part(batch, train[step % 2 :: 2])).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        score = model(batch)[:, 0]
    matched = (batch.target[:, 0] == 0) & held
    assert (score[positive][:, None] > score[matched][None]).double().mean() > 0.75
