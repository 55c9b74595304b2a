"""``python -m torchcell.profile``: one table, with a row for each representation and phase."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from torchcell.core.batch import BatchOrder
from torchcell.io.errors import InputError
from torchcell.profile import profile
from torchcell.report.profile import bars, caption
from torchcell.training import build as assemble
from torchcell.training.entry import conf_dir
from torchcell.training.profile import PHASES, representations

CELL = (
    "data.record.n_genes=120",
    "data.record.n_sets=400",
    "data.record.n_queries=16",
    "data.record.n_arrays=60",
    "data.batch_size=32",
    "model.encoder.dim=16",
)
BRIEF = ("profile.steps=2", "profile.warmup=1")
GNN = ("model=perturbed_cell_gnn", "model.encoder.attention_heads=1")
DANGO = ("+experiment=simulated_dango", "model.readout.heads=1")


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("profile", [*CELL, *BRIEF, *overrides])


@pytest.fixture(scope="module")
def gnn(tmp_path_factory) -> tuple[DictConfig, pd.DataFrame]:
    cfg = config(*GNN, f"paths.runs={tmp_path_factory.mktemp('runs')}")
    return cfg, profile(cfg)


def test_the_table_has_a_row_for_each_representation_and_phase(gnn):
    cfg, table = gnn
    written = pd.read_csv(Path(cfg.paths.runs) / "profile" / "simulated_cell" / "profile.csv")
    names = ["naive", "index", "lazy", "khop1", "khop2", "khop3"]
    rows = list(zip(written["representation"], written["phase"], strict=True))
    assert rows == [(name, phase) for name in names for phase in PHASES]
    assert np.isfinite(written["samples_per_s"]).all()
    assert (written["samples_per_s"] > 0).all()
    assert (written.query("representation != 'naive'")["steps"] == 2).all()
    pd.testing.assert_frame_equal(table, written, check_dtype=False)


def test_bytes_are_those_of_the_first_batch(gnn):
    cfg, table = gnn
    data = assemble.datamodule(cfg)
    order = BatchOrder(torch.from_numpy(data.split.index("train")), True, cfg.seed)
    batch = data.packed[order.draw()[:32]]
    assert (table.query("representation != 'naive'")["bytes_per_batch"] == batch.nbytes).all()


def test_a_sample_of_the_lazy_way_reads_the_whole_graph_and_one_of_the_index_only_its_members(gnn):
    cfg, table = gnn
    graph = assemble.datamodule(cfg).graph
    n_edges = sum(len(graph.csr(relation).indices) for relation in graph.relations)
    size = table.groupby("representation")[["nodes_per_sample", "edges_per_sample"]].first()
    assert size.loc["lazy"].tolist() == [graph.n_nodes, n_edges] == size.loc["naive"].tolist()
    assert 2 <= size.loc["index", "nodes_per_sample"] <= 3
    assert size.loc["khop1", "nodes_per_sample"] <= size.loc["khop2", "nodes_per_sample"] <= graph.n_nodes


def test_speed_is_given_against_the_naive_way_in_the_same_phase(gnn):
    _, table = gnn
    rate = table.set_index(["representation", "phase"])["samples_per_s"]
    for row in table.itertuples():
        expected = rate[row.representation, row.phase] / rate["naive", row.phase]
        assert row.relative_to_naive == pytest.approx(expected)
    assert "28 samples a batch" in caption(table)


def test_bars_are_as_high_as_the_table_says(gnn):
    _, table = gnn
    figure = bars(table, "title")
    assert figure.axes[0].get_yscale() == "log"
    drawn = [b.get_y() + b.get_height() for phase in figure.axes[0].containers for b in phase]
    expected = [rate for phase in PHASES for rate in table[table["phase"] == phase]["samples_per_s"]]
    np.testing.assert_allclose(drawn, expected)


def test_another_model_is_measured_as_it_stands_and_the_paths_are_told(tmp_path, capsys):
    cfg = config(*DANGO, "+model.prior=additive_ridge", f"profile.out={tmp_path}", "profile.naive=no/such/file.py")
    table = profile(cfg)
    assert table["representation"].tolist() == ["as_is"] * len(PHASES)
    assert table["relative_to_naive"].isna().all()
    said = capsys.readouterr().out
    assert "the naive representation is left out: there is no file" in said
    assert f"wrote {tmp_path / 'profile.csv'}" in said
    assert f"wrote {tmp_path / 'profile.html'}" in said
    assert (tmp_path / "profile_speed.png").read_bytes()[:4] == b"\x89PNG"


def test_record_and_graph_are_loaded_once_for_all_representations(tmp_path, monkeypatch):
    from torchcell.screen import simulate

    calls, original = [], simulate.simulated_screen
    monkeypatch.setattr(simulate, "simulated_screen", lambda **known: calls.append(known) or original(**known))
    profile(config(*GNN, f"profile.out={tmp_path}", "profile.naive=null", "profile.only=[lazy,khop1]"))
    assert len(calls) == 1


def test_a_representation_changes_a_copy_of_the_config():
    cfg = config(*GNN)
    before = OmegaConf.to_container(cfg)
    changed = representations(cfg)
    assert OmegaConf.to_container(cfg) == before
    assert changed["index"].model.readout.parts == ["local"]
    assert [changed[f"khop{k}"].data.hops for k in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([*GNN, "profile.only=[lzay]"], "'lzay'; the nearest are .*'lazy'"),
        ([*GNN, "+profile.representations.far={data.hosp: 4}"], "far sets 'data.hosp'.*the nearest are .*'data.hops'"),
        ([*GNN, "+profile.representations.far={modle.dim: 4}"], "far sets 'modle.dim', which this config does not"),
        (
            ["model=dango", "model@profile=perturbed_cell_gnn/profile"],
            "index sets 'model.readout.parts', which this config does not",
        ),
        ([*GNN, "profile.reference=lazzy"], "profile.reference names 'lazzy'; the nearest are .*'lazy'"),
        ([*GNN, "profile.only=[]"], "profile.only names nothing"),
        ([*GNN, "model.readout.parts=[local]"], "index and lazy come out as the same config"),
    ],
)
def test_a_representation_that_does_not_fit_is_named_with_what_to_do(overrides, words):
    with pytest.raises(InputError, match=words):
        representations(config(*overrides))


CELLS = (
    "+experiment=simulated_perturbseq",
    "data.record.n_genes=60",
    "data.record.n_regulators=16",
    "data.record.n_doubles=0",
    "model.encoder.dim=16",
    "model.encoder.heads=1",
    "model.encoder.layers=3",
)


def of_cells(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("profile", [*CELLS, *BRIEF, *overrides])


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    out = tmp_path_factory.mktemp("cells")
    return out, profile(of_cells("profile.only=[plain,checkpointing,bf16]", f"profile.out={out}"))


def test_a_model_of_cells_is_measured_with_what_saves_memory_and_without(cells):
    _, table = cells
    assert list(representations(of_cells())) == ["plain", "neighbors", "induced", "checkpointing", "bf16", "together"]
    full = table[table["phase"] == "full step"].set_index("representation")
    for ratio, column in (("time_to_reference", "busy_ms"), ("memory_to_reference", "tensors_mb")):
        np.testing.assert_allclose(full[ratio], full[column] / full.loc["plain", column])
        assert (full[column] > 0).all()
    assert full.loc["checkpointing", "memory_to_reference"] < 0.9, "three layers, and one at a time"
    assert full.loc["bf16", "memory_to_reference"] < 0.9
    assert (full["reference"] == "plain").all()


def test_the_page_tells_time_and_memory_against_the_plain_row(cells):
    out, table = cells
    page = (out / "profile.html").read_text()
    least = table[table["phase"] == "full step"].set_index("representation")["memory_to_reference"].idxmin()
    assert f"a full step against plain: least memory {least}" in page
    assert "tensors / plain" in page
    assert "against naive" not in page, "a column without a value"
    assert (out / "profile_against.png").is_file()


def test_a_model_without_rows_of_its_own_is_measured_as_it_stands():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("profile", ["+experiment=simulated_chemoe"])
    assert list(representations(cfg)) == ["as_is"]
    assert cfg.profile.naive is None


def test_a_row_that_the_data_cannot_give_is_named(tmp_path):
    cfg = of_cells("data.genes.neighbors=null", "profile.only=[neighbors]", f"profile.out={tmp_path}")
    with pytest.raises(InputError, match="row neighbors: .*list of neighbors.*profile.representations.neighbors=null"):
        profile(cfg)


def test_a_row_that_is_null_is_left_out():
    assert list(representations(config(*GNN, "profile.representations.index=null"))) == [
        "lazy",
        "khop1",
        "khop2",
        "khop3",
    ]


def test_each_key_of_the_profile_is_read_somewhere():
    folder = Path(sys.modules["torchcell"].__file__).parent
    source = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    for key in config().profile:
        assert re.search(rf"\bcfg\.profile\.{key}\b", source), f"nothing reads profile.{key}"


@pytest.mark.long
def test_two_processes_give_one_table(tmp_path):
    table = profile(config(*DANGO, "trainer=ddp_cpu", f"profile.out={tmp_path}", "profile.naive=null"))
    assert table["phase"].tolist() == list(PHASES)
    assert (table["processes"] == 2).all()
    assert len(pd.read_csv(tmp_path / "profile.csv")) == len(PHASES)
    assert "2 process(es)" in caption(table)


def test_the_command_helps_and_fails_with_status_1_in_one_line(tmp_path):
    command = [sys.executable, "-m", "torchcell.profile"]
    told, failed = (
        subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        for more in (["--help"], ["+experiment=simulated_dango", "model@profile=perturbed_cell_gnn/profile"])
    )
    assert told.returncode == 0
    assert "torchcell.profile +experiment=" in told.stdout
    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith("error: profile.representations.index sets")
    assert "Traceback" not in failed.stderr
