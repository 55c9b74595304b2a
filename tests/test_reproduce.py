"""A run is trained again from its folder alone and compares equal; what differs is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchcell.io.errors import InputError
from torchcell.reproduce import _code, code_change, compare, main, reproduce
from torchcell.train import train
from torchcell.training import environment as compute
from torchcell.training.entry import conf_dir
from torchcell.training.run_folder import environment_facts

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "data.record.n_genes=120", "data.record.n_sets=300", "data.record.n_queries=16", "data.record.n_arrays=60",
    "model.encoder.dim=16", "model.readout.heads=1", "model.readout.dropout=0.2", "trainer.max_epochs=2", "trainer.warmup_steps=2",
    "evaluation.n_boot=10", "baselines=none", "logger=wandb", "ckpt_path=auto",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return train(compose("config", [*TINY, f"paths.runs={folder}"])).folder.path


def test_a_run_is_reproduced_and_a_changed_number_is_not(finished, tmp_path, capfd):
    before = (finished / "metrics.csv").read_bytes()
    assert main([str(finished), "-o", str(tmp_path / "again"), "--any-code"]) == 0
    said = capfd.readouterr().out
    (again,) = (path.parent for path in tmp_path.glob("again/*/*/*/metrics.json"))
    assert said.splitlines()[-1].startswith("reproduced: all")
    assert (finished / "metrics.csv").read_bytes() == before, "the old run stays as it was"
    assert not (again / "wandb").exists()
    table = pd.read_csv(again / "metrics.csv")
    wrong = (table["system"] == "Dango") & (table["metric"].str.endswith("pearson"))
    table.loc[wrong, "value"] += 1e-3
    table.to_csv(again / "metrics.csv", index=False)
    rows = compare(finished, again, 1e-6).set_index("what")
    assert [re.search("pearson$", what) is not None for what in rows.index[~rows["agrees"]]] == [True]
    assert compare(finished, again, 2e-3)["agrees"].all()


def test_other_code_is_refused_with_both_remedies(finished, tmp_path):
    environment = json.loads((finished / "environment.json").read_text())
    for name in ("config.yaml", "metrics.json", "metrics.csv"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    (tmp_path / "environment.json").write_text(json.dumps(environment | {"git_commit": "0" * 40}))
    with pytest.raises(InputError, match=r"made by 000000000000.*--at-commit.*--any-code"):
        reproduce(tmp_path, tmp_path / "again")
    with pytest.raises(InputError, match="git has no commit 000000000000"):
        reproduce(tmp_path, tmp_path / "again", at_commit=True)
    assert not (tmp_path / "again").exists()


def test_the_same_commit_counts_as_other_code_where_changes_were_not_committed(monkeypatch):
    now = environment_facts() | {"git_commit": "a" * 40, "git_dirty": False}
    monkeypatch.setattr("torchcell.training.run_folder.environment_facts", lambda: now)
    assert code_change(now) == ""
    assert "which nothing holds" in code_change(now | {"git_dirty": True})
    monkeypatch.setattr("torchcell.training.run_folder.environment_facts", lambda: now | {"git_dirty": True})
    assert "uncommitted" in code_change(now)


def test_a_commit_is_checked_out_beside_and_goes_away_again():
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("not a git checkout")
    with _code(head.stdout.strip()) as tree:
        assert (tree / "torchcell" / "train.py").is_file()
    assert not tree.exists()
    trees = subprocess.run(["git", "-C", str(ROOT), "worktree", "list"], capture_output=True, text=True, check=True)
    assert str(tree) not in trees.stdout


def test_what_is_no_finished_run_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "not the folder of a finished run" in capsys.readouterr().err


def test_comparators_that_evaluate_was_given_are_not_asked_of_the_new_run(tmp_path):
    rows = ["system,part,metric,value,low,high", "Dango,test,pearson,0.5,0.4,0.6", "Other,test,pearson,0.7,0.6,0.8"]
    for name, extra, n in (("a", {"comparators": {"Other": {"verdict": "against Other: ..."}}}, 3), ("b", {}, 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"verdict": "x"} | extra))
        (tmp_path / name / "metrics.csv").write_text("\n".join(rows[:n]) + "\n")
    assert compare(tmp_path / "a", tmp_path / "b", 1e-6)["agrees"].all()


def test_missing_and_undefined_values_are_compared_too(tmp_path):
    for name, value, extra in (("a", "nan", {}), ("b", "nan", {"more": 1})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"seconds": os.getpid(), "verdict": "x"} | extra))
        columns = "system,part,metric,value,low,high\n"
        (tmp_path / name / "metrics.csv").write_text(f"{columns}Dango,test,pearson,{value},,\n")
    rows = compare(tmp_path / "a", tmp_path / "b", 1e-6).set_index("what")["agrees"]
    assert rows.to_dict() == {
        "verdict": True, "more": False, "test/Dango/pearson": True, "test/Dango/pearson low": True, "test/Dango/pearson high": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("extra", {"_target_": "os.system"}, "call 'os.system', which is not on the list"),
        ("extra", "${oc.decode:'{_target_: os.system}'}", "an interpolation that is not followed"),
    ],
)
def test_a_strangers_config_calls_nothing_but_what_runs_call(finished, tmp_path, key, value, said):
    for name in ("environment.json", "metrics.json", "metrics.csv"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    config = OmegaConf.load(finished / "config.yaml")
    OmegaConf.set_struct(config, False)
    config[key] = value
    OmegaConf.save(config, tmp_path / "config.yaml")
    with pytest.raises(InputError, match=said):
        reproduce(tmp_path, tmp_path / "again", any_code=True)
    (tmp_path / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    with pytest.raises(InputError, match="no git commit"), _code("--upload-pack=x"):
        pass


@pytest.mark.long
def test_a_run_knows_its_threads_and_a_new_one_takes_as_many(finished, tmp_path, monkeypatch, capfd):
    """.863 and .875 for one and two threads, and nothing said why."""
    then = json.loads((finished / "environment.json").read_text())
    assert then["processor"]
    assert then["threads"]["torch"] == torch.get_num_threads()
    assert {"name", "version", "kernel", "threads"} == set(then["blas"][0])
    two = then | {"threads": {"torch": 2, "variables": {}}, "processor": "another one"}
    for name in ("config.yaml", "metrics.json", "metrics.csv"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    (tmp_path / "environment.json").write_text(json.dumps(two))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = reproduce(tmp_path, tmp_path / "again", any_code=True)
    now = json.loads((found.folder / "environment.json").read_text())
    assert now["threads"] == {"torch": 2, "variables": compute.variables_of(two)}
    assert compute.variables_of(two)["OMP_NUM_THREADS"] == "2"
    assert f"note: processor: another one then, {then['processor']} now" in capfd.readouterr().err
    assert found.unlike == [f"processor: another one then, {then['processor']} now"]
    if not found.agrees:
        assert found.verdict.endswith("; it was made with other processor")


def test_what_computes_is_compared_and_an_older_run_does_not_tell_it():
    now = {
        "processor": "A", "threads": {"torch": 4, "variables": {"OMP_NUM_THREADS": "4"}},
        "blas": [{"name": "openblas", "version": "0.3", "kernel": "Zen", "threads": 8}],
    }  # fmt: skip
    assert compute.differences(now, now) == []
    other = now | {"threads": {"torch": 1, "variables": {}}, "blas": [now["blas"][0] | {"kernel": "Haswell"}]}
    assert compute.differences(now, other) == [
        "BLAS: openblas 0.3 Zen then, openblas 0.3 Haswell now",
        "threads: 4 then, 1 now",
    ]
    assert compute.variables_of(now) == {
        "OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "8"
    }  # fmt: skip
    assert compute.differences({}, now) == ["processor, BLAS and number of threads: not recorded then"]
    assert compute.variables_of({}) == {}
