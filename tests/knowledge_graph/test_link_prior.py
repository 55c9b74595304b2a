"""A prior beside a model of links: inner folds leave the graph, edges have lists, log-odds add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.small_runs import composed
from torchcell.core.predictor import Predictor
from torchcell.core.prior import FOLDS, Calibration, out_of_fold
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.datamodule import LinkDataModule
from torchcell.nn.losses import list_loss, reciprocal_ranks
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training import build, checkpoint
from torchcell.training.entry import conf_dir
from torchcell.training.prior import fit_prior
from torchcell.training.renamed import new_names

SMALL = (
    "benchmark=simulated_knowledge_graph", "data.record.n_genes=60", "data.record.n_compounds=40", "logger=csv",
    "data.record.n_diseases=30", "data.record.n_communities=5", "evaluation.n_boot=20", "data.batch_size=32",
)  # fmt: skip


def small(*overrides: str) -> DictConfig:
    cfg = composed(*SMALL, *overrides)
    cfg.baselines = {name: cfg.baselines[name] for name in ("degree_product", "stack")}
    cfg.baselines.stack.penalties, cfg.baselines.stack.negatives = [10.0], 10
    return cfg


@pytest.fixture(scope="module")
def data() -> LinkDataModule:
    return build.datamodule(small())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Trained:
    return train(small("model=stack", f"paths.runs={tmp_path_factory.mktemp('runs')}"))


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Trained:
    """HGT beside the stack, with a network on its columns too."""
    runs = f"paths.runs={tmp_path_factory.mktemp('runs')}"
    sizes = [f"model.encoder.{key}" for key in ("embedding_dim=16", "dim=16", "heads=1")]
    return train(small("model=hgt_embedder", *sizes, "++model.residual.hidden=[8]", "trainer.max_epochs=2", runs))


class Memory(Predictor):
    """1 for a pair that its graph joins, NaN for any other."""

    name = "memory"

    def fit(self, train, val, graph):
        self.known = set(train.graph.sample_id.tolist()) | set(train.sample_id[train.positive].tolist())
        return self

    def predict(self, record):
        assert not record.positive.any(), "it sees no label"
        known = np.array([name in self.known for name in record.sample_id.tolist()])
        return np.repeat(np.where(known, 1.0, np.nan)[:, None], len(record.outputs), axis=1).astype(np.float32)


def test_no_training_edge_is_predicted_by_what_had_it_in_its_graph(data):
    parts, n = list(data.inner_parts()), len(data.record_whole) + len(data.lists.links)
    assert len(parts) == FOLDS
    assert np.isnan(out_of_fold(Memory, parts, data.record("val"), None, (n, 2))).all()
    assert sorted(np.concatenate([part.at for part in parts]).tolist()) == sorted(data.learned_from().tolist())
    everything = data.record_whole.joined(data.lists.links)
    for part in parts:
        np.testing.assert_array_equal(everything.sample_id[part.at], part.held_out.sample_id)


def test_lists_hold_no_known_edge_and_go_with_the_fold_of_their_edge(data):
    lists, record = data.lists, data.record_whole
    of_part = data.split.part[lists.edge]
    assert set(of_part) == {"train", "val"}
    seen = set(data.message_graph.sample_id.tolist())
    assert not seen & set(lists.links.sample_id.tolist())
    known_to_val = set(record.sample_id[record.positive & (data.split.part == "val")].tolist())
    ends = record.source_index, record.target_index
    others = lists.links.source_index, lists.links.target_index
    for edge, at in zip(lists.edge, lists.others, strict=True):
        for end in (0, 1):
            assert (others[end][at[end][at[end] >= 0]] == ends[end][edge]).all()
        if data.split.part[edge] == "val":
            assert not known_to_val & set(lists.links.sample_id[at[at >= 0]].tolist())
    for part in data.inner_parts():
        inside = np.isin(lists.edge, part.at)
        of_fold = lists.others[inside]
        assert set(len(record) + of_fold[of_fold >= 0]) <= set(part.at.tolist())


def test_a_batch_has_its_candidates_and_what_their_edges_are_ranked_among(network):
    data = network.datamodule
    batch = next(iter(data.train_dataloader()))
    flat = torch.arange(len(batch) * batch.target.shape[1]).reshape(batch.target.shape)
    row, column = batch.lists.clamp(min=0) // flat.shape[1], batch.lists[:, 0] % flat.shape[1]
    assert (column == data.spec.outputs.index("CtD_uniform")).all()
    assert (batch.target[row[:, 0], 1] == 1).all()
    listed = torch.isnan(batch.target).all(1)
    assert listed[32:].all()
    assert torch.isnan(batch.target[:, 0]).all(), "how matched non-edges were drawn is not learned"
    assert (batch.target[:32, 1] == 0).any()
    assert listed[row[:, 1:][batch.lists[:, 1:] >= 0]].all()
    same = (batch.source_node[row] == batch.source_node[row[:, :1]]) | (
        batch.target_node[row] == batch.target_node[row[:, :1]]
    )
    assert same[batch.lists >= 0].all()
    whole = data.record_whole.joined(data.lists.links)
    expected = data.prior.predict(whole.subset(batch.sample.numpy()))
    assert batch.prior.shape == expected.shape
    assert not torch.allclose(batch.prior, expected), "the training part's are out of fold"
    test = next(iter(data.test_dataloader()))
    assert test.lists is None
    torch.testing.assert_close(test.prior, data.prior.predict(data.record("test")))


def test_labels_of_the_test_part_reach_no_prior_of_training(data, monkeypatch, tmp_path):
    """Nor do the calibration, the lists and the columns that a network reads."""
    made = []
    for label in (1.0, 0.0):
        monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / str(label)))  # nothing is answered from the cache
        twin = build.datamodule(small())
        at = twin.split.index("test")
        twin.record_whole.label[at] = np.where(np.isnan(twin.record_whole.label[at]), np.nan, label)
        prior, _ = fit_prior(twin, small("model=stack_network"))
        made.append((twin.listed.packed.prior.numpy().tobytes(), np.concatenate(prior.calibration).tobytes()))
        assert list((tmp_path / str(label)).rglob("*.npz"))
    assert made[0] == made[1]


def test_the_stack_as_a_model_is_its_baseline_and_is_not_scored_twice(alone, network):
    table = pd.read_csv(alone.folder.path / "metrics.csv")
    assert set(table["system"]) == {"PriorAlone", "degree_product"}
    assert "the baseline stack is the model itself" in alone.scored.summary["verdict"]["text"]
    beside = pd.read_csv(network.folder.path / "metrics.csv").query("system == 'stack'").set_index("metric")["value"]
    own = table.query("system == 'PriorAlone'").set_index("metric")["value"]
    same = [name for name in own.index if not name.endswith("brier")]  # a baseline's scores are no probabilities
    np.testing.assert_allclose(own[same], beside[same], atol=1e-6)


def test_network_prior_and_both_have_rows_and_add_up(network):
    table = pd.read_csv(network.folder.path / "metrics.csv")
    assert {"HGTEmbedder", "network_alone", "stack", "degree_product"} <= set(table["system"])
    history = pd.read_csv(network.folder.path / "history.csv")
    assert {"val/weight/network", "val/weight/prior", "val/lists/MRR", "train/loss/target"} <= set(history)
    assert not [name for name in history if name.startswith("val/CtD_tail")], (
        "ranks of the network alone choose nothing"
    )
    model, data = network.model.eval(), network.datamodule
    batch = next(iter(data.test_dataloader())).blind()
    with torch.no_grad():
        both = model(batch)
        with model.without_prior():
            alone = model(batch)
    torch.testing.assert_close(both, alone + model.stacking.prior * batch.prior[:, :2])
    checks = network.scored.summary["checks"]
    assert checks["network_source_node_shuffled"]["decides"] is False


@pytest.mark.parametrize("run", ["alone", "network"])
def test_predict_says_what_the_run_said(run, request, tmp_path):
    trained = request.getfixturevalue(run)
    record = trained.datamodule.record("test")
    ends = {"source": record.source_index, "target": record.target_index}
    pd.DataFrame({end: record.node_id[index] for end, index in ends.items()}).to_csv(
        tmp_path / "asked.csv", index=False
    )
    keys = [f"ckpt={trained.folder.best}", f"perturbations={tmp_path / 'asked.csv'}", f"out={tmp_path / 'out.csv'}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        found = predict(compose("predict", keys)).set_index("sample_id")["score"]
    said = pd.read_parquet(trained.folder.path / "predictions.parquet").query("target == 'CtD_uniform'")
    expected = said.set_index("sample_id")[type(trained.model).__name__]
    np.testing.assert_allclose(found[expected.index], expected, atol=1e-5)


def test_lists_are_scored_by_the_share_and_the_rank_of_their_first():
    score = torch.tensor([[0.0, 2.0], [1.0, 1.0], [3.0, 1.0]])
    lists = torch.tensor([[1, 3, 5], [3, 5, -1]])
    expected = (torch.tensor([2.0, 1.0, 1.0]).logsumexp(0) - 2 + np.log(2)) / 2
    torch.testing.assert_close(list_loss(score, lists), expected.float())
    assert reciprocal_ranks(score, lists).tolist() == [1.0, pytest.approx(1 / 1.5)]
    assert list_loss(score, lists[:0]) == 0


def test_scores_become_log_odds_and_keep_their_ranks():
    rng = np.random.default_rng(0)
    label = (rng.random(4000) < 0.3).astype(float)
    odds = 1.5 * (rng.normal(size=4000) + label) - 1.6  # of such labels, about
    made = Calibration.fit(np.stack([100 * odds + 7, -odds, odds], 1), np.stack([label, label, label * np.nan], 1))
    assert made.slope_T[0] == pytest.approx(1 / 150, rel=0.1)
    assert made.slope_T[1] == 0, "a score that ranks them the wrong way says nothing"
    assert (made.intercept_T[2], made.slope_T[2]) == (0, 1), "without labels it stays as it is"
    assert (1 / (1 + np.exp(-made(np.stack([100 * odds + 7] * 3, 1))[:, 0]))).mean() == pytest.approx(0.3, abs=0.02)


def test_a_checkpoint_with_the_metapath_pair_says_the_version_and_what_to_do(network):
    assert new_names("model.decoder.metapath_pairs", ()) == ["model.prior=stack"]
    saved = checkpoint.load(network.folder.best)
    saved.config.model.decoder.metapath_pairs = 1000000
    with pytest.raises(
        InputError,
        match=r"written by torchcell \S+, whose HGTEmbedder took .*metapath_pairs \(model.prior=stack now\).*train again",
    ):
        saved.model()
