"""``scripts/sameness.py``: two equal sets are equal, and whatever was changed on purpose is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import sameness
import torch
import yaml
from sameness_freeze import PARTS, RUNS, tensor_hashes
from sameness_set import renamed

ROOT = Path(__file__).resolve().parents[2]


PLANNED = ["simulated_dango", "simulated_cgt", "configs", "tests"]
"""Of the small sets here; ``bench`` is more than what must be there."""


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_table(path, change):
    is_csv = path.suffix == ".csv"
    table = pd.read_csv(path) if is_csv else pd.read_parquet(path)
    change(table)
    table.to_csv(path, index=False) if is_csv else table.to_parquet(path, index=False)


def save_weights(folder, weights):
    torch.save({"state_dict": weights}, folder / "best.ckpt")
    (folder / "weights.json").write_text(json.dumps(tensor_hashes(folder / "best.ckpt")))


def write_run(folder, model, keep_checkpoint=True):
    folder.mkdir(parents=True)
    names = [f"s{i}" for i in range(6)]
    split = {"sample_id": names, "part": ["train", "test"] * 3, "group": names}
    pd.DataFrame(split).to_parquet(folder / "split.parquet", index=False)
    rows = {"system": [model, "mean"], "part": "test", "metric": "pearson", "value": [0.5, np.nan], "low": 0.4}
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    summary = {"model": model, "verdict": "better", "seconds": 3.0, "checks": {"spread": 0.3}, "split_hash": "ab"}
    (folder / "metrics.json").write_text(json.dumps(summary))
    table = {"sample_id": names, "target": "y", "measured": np.arange(6.0), model: np.arange(6.0), "mean": 2.5}
    pd.DataFrame(table).to_parquet(folder / "predictions.parquet", index=False)
    genes = anndata.AnnData(
        np.ones((2, 3), np.float32), pd.DataFrame(index=["a", "b"]), pd.DataFrame(index=list("xyz"))
    )
    genes.layers[model] = np.zeros((2, 3), np.float32)
    genes.write_h5ad(folder / "predictions_condition.h5ad")
    save_weights(folder, {"net.weight": torch.ones(2, 3), "net.bias": torch.zeros(3)})
    if not keep_checkpoint:
        (folder / "best.ckpt").unlink()


def write_manifest(folder):
    parts = {
        part.name: {"status": "done", "files": sorted(file.name for file in part.iterdir())}
        for part in folder.iterdir()
        if part.is_dir()
    }
    (folder / "sameness.json").write_text(json.dumps({"planned": PLANNED, "parts": parts}))


@pytest.fixture
def sets(tmp_path):
    """Two equal sets, A and B."""
    a, b = tmp_path / "A", tmp_path / "B"
    write_run(a / "simulated_dango", "Dango")
    write_run(a / "simulated_cgt", "Transformer", keep_checkpoint=False)
    (a / "configs").mkdir()
    config = {
        "seed": 0,
        "model": {"_target_": "torchcell.screen.models.dango.Dango", "dim": 64, "channels": ["x", "y"]},
    }
    (a / "configs" / "simulated_dango.yaml").write_text(yaml.safe_dump(config))
    (a / "tests").mkdir()
    (a / "tests" / "ids.txt").write_text("tests/test_a.py::test_one\ntests/test_a.py::test_two[x]\n")
    (a / "bench").mkdir()
    target = {"what": "speed", "figure": "12x", "wanted": ">= 10x", "met": True}
    (a / "bench" / "targets.json").write_text(json.dumps([target]))
    write_manifest(a)
    shutil.copytree(a, b)
    return a, b


def compared(sets, capsys, *options):
    """Exit status and what was printed, in one line without the table's borders."""
    status = sameness.main(["compare", *map(str, sets), *options])
    out, err = capsys.readouterr()
    return status, " ".join((out + err).replace("│", " ").split())


def test_two_equal_sets_are_equal(sets, capsys):
    assert compared(sets, capsys) == (0, "nothing differs")


def test_time_and_memory_are_of_the_machine(sets, capsys):
    edit_json(sets[1] / "simulated_dango" / "metrics.json", lambda content: content.update(seconds=99.0))
    edit_json(sets[1] / "bench" / "targets.json", lambda rows: rows[0].update(figure="31x"))
    assert compared(sets, capsys)[0] == 0


def plant_prediction(b):
    def change(table):
        table.loc[3, "Dango"] += 0.25

    edit_table(b / "simulated_dango" / "predictions.parquet", change)


def plant_expression(b):
    path = b / "simulated_dango" / "predictions_condition.h5ad"
    table = anndata.read_h5ad(path)
    table.layers["Dango"][1, 2] = -0.5
    table.write_h5ad(path)


def plant_missing(b):
    def change(table):
        table.loc[0, "mean"] = np.nan

    edit_table(b / "simulated_dango" / "predictions.parquet", change)


def plant_samples(b):
    path = b / "simulated_dango" / "predictions.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)


def plant_metric(b):
    def change(table):
        table.loc[0, "value"] = 0.51

    edit_table(b / "simulated_dango" / "metrics.csv", change)


def plant_undefined(b):
    def change(table):
        table.loc[0, "low"] = np.nan

    edit_table(b / "simulated_dango" / "metrics.csv", change)


def plant_summary(b):
    edit_json(b / "simulated_dango" / "metrics.json", lambda content: content["checks"].update(spread=0.2))


def plant_part(b):
    def change(table):
        table.loc[0, "part"] = "val"

    edit_table(b / "simulated_dango" / "split.parquet", change)


def plant_config(b):
    path = b / "configs" / "simulated_dango.yaml"
    path.write_text(path.read_text().replace("dim: 64", "dim: 32"))


def plant_less_config(b):
    path = b / "configs" / "simulated_dango.yaml"
    path.write_text(path.read_text().replace("seed: 0\n", ""))


def plant_weight(b):
    save_weights(b / "simulated_dango", {"net.weight": torch.ones(2, 3), "net.bias": torch.tensor([0.0, 0.125, 0.0])})


def plant_weight_without_file(b):
    save_weights(b / "simulated_cgt", {"net.weight": torch.ones(3, 2), "net.bias": torch.zeros(3)})
    (b / "simulated_cgt" / "best.ckpt").unlink()


def plant_lost_test(b):
    (b / "tests" / "ids.txt").write_text("tests/test_a.py::test_one\n")


def plant_more_tests(b):
    path = b / "tests" / "ids.txt"
    path.write_text(path.read_text() + "tests/test_b.py::test_three\n")


def plant_missed_target(b):
    edit_json(b / "bench" / "targets.json", lambda rows: rows[0].update(met=False))


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (plant_prediction, "simulated_dango predictions.parquet Dango largest difference 0.25, 1 of 6 values differ"),
        (plant_expression, "predictions_condition.h5ad Dango largest difference 0.5, 1 of 6 values differ"),
        (
            plant_missing,
            "predictions.parquet mean largest difference 0, 1 of 6 values differ, 1 of them missing in one",
        ),
        (plant_samples, "values [6, 1] -> [5, 1], both have [5, 1]"),
        (plant_metric, "metrics.csv test/Dango/pearson value 0.5 -> 0.51 (+0.01)"),
        (plant_undefined, "metrics.csv test/Dango/pearson low 0.4 -> nan"),
        (plant_summary, "metrics.json checks.spread 0.3 -> 0.2 (-0.1)"),
        (plant_part, "split, part 1 of 6 samples have another"),
        (plant_config, "configs simulated_dango.yaml model.dim 64 -> 32"),
        (plant_less_config, "configs simulated_dango.yaml seed 0"),
        (plant_weight, "weights 1 of 2 tensors differ: net.bias; the largest difference is 0.125"),
        (plant_weight_without_file, "simulated_cgt weights 1 of 2 tensors differ: net.weight"),
        (plant_lost_test, "tests tests/test_a.py::test_two[x] there"),
        (plant_more_tests, "tests tests/test_b.py::test_three there"),
        (plant_missed_target, "bench speed >= 10x met -> >= 10x missed"),
    ],
)
def test_a_planted_difference_is_found_and_named(sets, capsys, plant, told):
    plant(sets[1])
    status, text = compared(sets, capsys)
    assert status == 1
    assert told in text


def test_what_only_b_has_stands_apart_and_may_be_allowed(sets, capsys):
    plant_more_tests(sets[1])
    edit_json(sets[1] / "simulated_dango" / "metrics.json", lambda content: content.update(fingerprint="ff"))
    status, text = compared(sets, capsys, "--allow-new")
    assert status == 0
    assert text.endswith("0 changed, 0 gone, 2 new")
    plant_metric(sets[1])
    assert compared(sets, capsys, "--allow-new")[0] == 1


def test_a_verdict_that_became_a_dict_is_compared_by_its_leaves(sets, capsys, tmp_path):
    def change(content):
        content["verdict"] = {"text": "better", "effect": 0.1}

    edit_json(sets[1] / "simulated_dango" / "metrics.json", change)
    only = ["--only", "simulated_dango"]
    status, text = compared(sets, capsys, *only)
    assert (status, text.endswith("0 changed, 1 gone, 2 new")) == (1, True)
    (tmp_path / "rename").write_text("verdict=verdict.text\n")
    status, text = compared(sets, capsys, *only, "--rename", str(tmp_path / "rename"), "--allow-new")
    assert "metrics.json verdict.effect 0.1" in text
    assert (status, text.endswith("0 changed, 0 gone, 1 new")) == (0, True)


def test_renamed_names_are_mapped_everywhere(sets, capsys, tmp_path):
    """A house that is rebuilt renames metrics, modules, weights and tests, and its numbers must stay."""
    a, b = sets
    for file in (
        b / "simulated_dango" / "metrics.csv",
        b / "configs" / "simulated_dango.yaml",
        b / "tests" / "ids.txt",
    ):
        text = file.read_text().replace("pearson", "pearson_delta").replace("screen.models.dango", "screen.dango")
        file.write_text(text.replace("test_one", "test_first").replace("dim:", "width:"))
    save_weights(b / "simulated_dango", {"encoder.weight": torch.ones(2, 3), "encoder.bias": torch.zeros(3)})
    assert compared(sets, capsys)[0] == 1
    lines = ["# later names", "", "pearson = pearson_delta", "torchcell.screen.models.dango=torchcell.screen.dango"]
    lines += ["test_one=test_first", "model.dim=model.width", "net=encoder"]
    (tmp_path / "rename").write_text("\n".join(lines))
    save_weights(b / "simulated_cgt", {"encoder.weight": torch.ones(2, 3), "encoder.bias": torch.zeros(3)})
    (b / "simulated_cgt" / "best.ckpt").unlink()
    shutil.copyfile(b / "simulated_dango" / "metrics.csv", b / "simulated_cgt" / "metrics.csv")
    shutil.copyfile(a / "simulated_dango" / "metrics.csv", a / "simulated_cgt" / "metrics.csv")
    assert compared(sets, capsys, "--rename", str(tmp_path / "rename")) == (0, "nothing differs")


def test_a_name_is_mapped_only_as_a_whole():
    rename = {"spread": "width", "guards.spread": "checks.spread"}
    assert renamed("guards.spread.threshold", rename) == "checks.width.threshold"
    assert renamed("guards.spreads", rename) == "guards.spreads"
    assert renamed("trainer.max_epochs=2", {"trainer.max_epochs": "fit.epochs"}) == "fit.epochs=2"


def empty(b):
    shutil.rmtree(b)
    b.mkdir()


def no_parts(b):
    (b / "sameness.json").write_text('{"planned": [], "parts": {}}')


def cut_off(b):
    edit_json(b / "sameness.json", lambda content: content["parts"].pop("tests"))


def lost_part(b):
    shutil.rmtree(b / "tests")
    write_manifest(b)


def lost_file(b):
    (b / "simulated_dango" / "predictions.parquet").unlink()


def empty_list(b):
    (b / "tests" / "ids.txt").write_text("")


def failed_run(b):
    edit_json(b / "sameness.json", lambda content: content["parts"]["simulated_cgt"].update(status="failed"))


@pytest.mark.parametrize("spoil", [empty, no_parts, cut_off, lost_part, lost_file, empty_list, failed_run])
@pytest.mark.parametrize("both", [False, True])
def test_an_empty_or_incomplete_set_is_never_the_same(sets, capsys, spoil, both):
    for folder in sets if both else sets[1:]:
        spoil(folder)
    status, text = compared(sets, capsys)
    assert status == 2
    assert text.startswith("error: ")


def test_parts_can_be_compared_alone(sets, capsys):
    lost_part(sets[1])
    failed_run(sets[0])
    plant_prediction(sets[1])
    assert compared(sets, capsys, "--only", "configs", "bench")[0] == 0
    assert compared(sets, capsys, "--only", "simulated_dango")[0] == 1
    assert compared(sets, capsys, "--only", "simulated_cgt")[0] == 2
    assert compared(sets, capsys, "--only", "tests")[0] == 2


def test_every_simulated_experiment_is_frozen():
    experiments = yaml.safe_load((ROOT / "conf" / "experiment.yaml").read_text())
    assert {name for name in experiments if name.startswith("simulated_")} == {
        name for name in RUNS if name.startswith("simulated_")
    }
    assert len(set(PARTS)) == len(RUNS) + 2


@pytest.mark.long
def test_what_was_frozen_can_be_compared_and_is_not_mixed_with_other_code(tmp_path, capsys, monkeypatch):
    """One small experiment, some 10 s."""
    monkeypatch.setitem(RUNS, "simulated_dango", ("data.record.n_sets=900", "baselines=none"))
    a, only = str(tmp_path / "A"), ["--only", "simulated_dango"]
    assert sameness.main(["freeze", a, *only]) == 0
    assert capsys.readouterr().out.startswith("1/1 simulated_dango ...\n")
    assert sameness.main(["compare", a, a, *only]) == 0
    assert sameness.main(["compare", a, a]) == 2
    assert sorted(path.name for path in (tmp_path / "A").iterdir()) == ["sameness.json", "simulated_dango"]
    found = {file.name for file in (tmp_path / "A" / "simulated_dango").iterdir()}
    assert {"best.ckpt", "metrics.csv", "metrics.json", "predictions.parquet", "split.parquet", "weights.json"} <= found
    edit_json(tmp_path / "A" / "sameness.json", lambda content: content.update(code="other"))
    assert sameness.main(["freeze", a, *only]) == 2


@pytest.mark.long
def test_a_run_that_fails_is_recorded_and_the_rest_goes_on(tmp_path, capsys):
    """A name that the checkout does not have stands for any failure."""
    (tmp_path / "rename").write_text("trainer.max_epochs=trainer.no_such_key\n")
    out = tmp_path / "A"
    only = ["--only", "simulated_dango", "simulated_cgt", "--rename", str(tmp_path / "rename")]
    assert sameness.main(["freeze", str(out), *only]) == 1
    text = capsys.readouterr().out
    assert "2/2 simulated_cgt ..." in text
    assert "no config key or group 'trainer.no_such_key'" in text
    assert sameness.main(["compare", str(out), str(out)]) == 2
    assert "simulated_cgt failed, simulated_chemoe is not there" in capsys.readouterr().err
    (out / "work").mkdir()  # as a killed freeze leaves it
    assert sameness.main(["freeze", str(out), "--only", "simulated_dango", *only[3:]]) == 1
