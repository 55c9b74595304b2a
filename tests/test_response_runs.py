"""Drug response from the command line's functions: train, score again, predict what was never seen, embed."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import torchcell as tc
from torchcell.drug_response.record import Response
from torchcell.drug_response.table import read_treatments
from torchcell.evaluate import evaluate
from torchcell.io.errors import InputError
from torchcell.predict import predict
from torchcell.train import Trained, train
from torchcell.training.entry import conf_dir

SMALL = [
    "data.record.n_drugs=40", "data.record.doses=[1.0,10.0]", "data.record.n_genes=120", "data.molecules.bits=256",
    "data.cell_line=[A375,PC3]", "model.inputs.width=16", "model.inputs.hidden=32", "model.genes.width=16",
    "model.expert.hidden=[16,8]", "trainer.max_epochs=6", "trainer.warmup_steps=2", "evaluation.n_boot=50",
    "model.optimizer.lr=0.01",
]  # fmt: skip


def configured(name: str, overrides: list[str]) -> OmegaConf:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("runs")
    return train(configured("config", ["+experiment=simulated_chemoe", f"paths.runs={folder}", *SMALL]))


def test_a_run_scores_samples_and_conditions_beside_the_baselines(trained):
    folder = trained.folder.path
    table = pd.read_csv(folder / "metrics.csv")
    assert {"pearson_delta", "condition/pearson_delta", "pearson2_de@20", "pearson2_de@20_published"} <= set(
        table.metric
    )
    assert {"CheMoE", "constant", "line_gene_mean", "line_mean_ridge", "replicate_ceiling"} <= set(table.system)
    checks = json.loads((folder / "metrics.json").read_text())["checks"]
    assert {f"{what}_shuffled" for what in ("drug_with_dose", "drug", "basal", "dose", "line")} <= set(checks)
    assert checks["drug_with_dose_shuffled"]["decides"] is True
    predictions = anndata.read_h5ad(folder / "predictions.h5ad")
    assert predictions.obs.sample_id.tolist() == trained.datamodule.record("test").sample_id.tolist()
    assert "CheMoE" in predictions.layers
    page = (folder / "report.html").read_text()
    assert all(f"<h3>{level}</h3>" in page for level in ("condition", "plate_known"))
    assert "expert" in page.lower()


def request_of(record: Response, path: Path) -> Path:
    """A file that a user could write: treatments with their own controls, no plate, nothing measured."""
    table = record.to_anndata()
    table.obs = table.obs[["perturbation", "cell_line", "dose_value", "time"]]
    table.X = np.zeros(table.shape, dtype=np.float32)
    table.write_h5ad(path)
    return path


def test_a_score_is_of_what_predict_answers(trained, tmp_path):
    """Test samples had treated training wells of their plate as input, which predict never has."""
    asked = request_of(trained.datamodule.record("test"), tmp_path / "asked.h5ad")
    request = [f"ckpt={trained.folder.best}", f"perturbations={asked}", f"out={tmp_path / 'out.h5ad'}"]
    predict(configured("predict", request))
    answer = anndata.read_h5ad(tmp_path / "out.h5ad")
    results = trained.scored.evaluation.results
    assert [each.level for each in results] == ["", "condition", "plate_known"]
    assert answer.obs_names.tolist() == results[0].sample_id.tolist()
    np.testing.assert_allclose(answer.X, results[0].systems["CheMoE"], rtol=1e-5, atol=1e-5)
    in_python = tc.load(trained.folder.path).predict(anndata.read_h5ad(asked))
    np.testing.assert_array_equal(in_python.X, answer.X)
    pd.testing.assert_frame_equal(in_python.obs, answer.obs, check_dtype=False, check_categorical=False)
    assert set(in_python.layers) == set(answer.layers)
    rows = pd.DataFrame(
        {"drug": ["new"], "smiles": ["CCO"], "cell_line": ["A375"], "dose": ["500 nM"], "time": ["24 h"]}
    )
    table = tc.load(trained.folder.best).predict(rows)
    assert table["note"].tolist() == ["no training sample of new; trained on doses of 1 to 10 µM, not 0.5"]
    with pytest.raises(InputError, match="which a list can't name; give a DataFrame"):
        tc.load(trained.folder.best).predict(["new"])
    assert np.abs(answer.X - results[2].systems["CheMoE"]).mean() > 0.001
    table = trained.scored.evaluation.table
    assert {"plate_known/pearson_delta", "plate_known/pearson_delta_plate"} <= set(table.metric)


@pytest.mark.parametrize("name", list(OmegaConf.load(conf_dir() / "baselines" / "response.yaml")))
def test_a_baseline_is_scored_as_it_would_answer_a_request(trained, name, tmp_path):
    data, config = trained.datamodule, OmegaConf.load(conf_dir() / "baselines" / "response.yaml")[name]
    fitted = instantiate(config).with_folds(data.inner_folds).fit(data.record("train"), data.record("val"), None)
    request = read_treatments(str(request_of(data.record("test"), tmp_path / "asked.h5ad")), data.spec)
    scored = trained.scored.results.systems[name]
    np.testing.assert_allclose(fitted.predict(request), scored, rtol=1e-5, atol=1e-5)
    known = trained.scored.evaluation.results[2].systems[name]
    if name != "fake_perturbation":  # one control a plate: none to draw
        assert np.isfinite(known).all()
    need_them = ("plate_gene_mean", "plate_mean_ridge", "fake_perturbation")
    reads_plates = name in (*need_them, "gaussian_process", "stack")
    assert np.array_equal(known, scored) != reads_plates


def test_the_best_epoch_and_the_shares_are_chosen_for_a_request(trained, tmp_path):
    """Validation knew the plates too, so that both were chosen for a way the model is not used."""
    data, model = trained.datamodule, trained.model
    asked = request_of(data.record("val"), tmp_path / "asked.h5ad")
    request = [f"ckpt={trained.folder.best}", f"perturbations={asked}", f"out={tmp_path / 'out.h5ad'}"]
    predict(configured("predict", request))
    seen = torch.cat([model.eval()(batch).detach() for batch in data.val_dataloader()]).numpy()
    np.testing.assert_allclose(seen, anndata.read_h5ad(tmp_path / "out.h5ad").X, rtol=1e-5, atol=1e-5)


def test_no_drug_is_in_training_and_test(trained):
    record = trained.datamodule
    assert not set(record.record("train").drug) & set(record.record("test").drug)


def test_a_checkpoint_scores_the_same_again(trained, tmp_path):
    request = [f"ckpt={trained.folder.best}", "n_boot=50", f"out={tmp_path / 'again'}"]
    again = evaluate(configured("evaluate", request))
    pd.testing.assert_frame_equal(again.evaluation.table, trained.scored.evaluation.table)


def test_a_mixture_that_fell_to_one_expert_is_called_collapsed(trained, tmp_path):
    state = torch.load(trained.folder.best, weights_only=True)
    state["state_dict"]["usage.line_EL"][1:] = 0
    ckpt = tmp_path / "checkpoints" / "best.ckpt"
    ckpt.parent.mkdir()
    torch.save(state, ckpt)
    again = evaluate(configured("evaluate", [f"ckpt={ckpt}", "n_boot=10", f"out={tmp_path / 'again'}"]))
    assert again.summary["collapsed"] is True
    said = "no verdict: collapsed: its mixture is one network, of 4 experts one does all"
    assert again.summary["verdict"]["text"].startswith(said)
    assert trained.scored.summary["collapsed"] is False


def test_comparators_are_scored_on_the_same_samples_and_each_has_a_line(trained, tmp_path, capsys):
    """A mixture of experts is worth its cost where it beats one network; nothing said so."""
    small = [one for one in SMALL if "expert" not in one and "max_epochs" not in one]
    other = ["model=response_mlp", "model.hidden=[16,8]", "model.prior=null"]
    runs = ["trainer.max_epochs=2", "baselines=none", "data.batch_size=32", f"paths.runs={tmp_path / 'runs'}"]
    one = train(configured("config", ["+experiment=simulated_chemoe", *small, *other, *runs]))
    request = [f"ckpt={trained.folder.best}", f"comparators=[{one.folder.best},{trained.folder.last}]", "n_boot=50"]
    found = evaluate(configured("evaluate", [*request, f"out={tmp_path / 'out'}"]))
    last = f"CheMoE {trained.folder.path.name} last"
    assert found.results.comparators == ("network_alone", "ResponseMLP", last)
    assert found.evaluation.verdict.text == trained.scored.evaluation.verdict.text
    beside, alone = (
        each.evaluation.table.query("system == 'ResponseMLP'").set_index("metric").value for each in (found, one.scored)
    )
    assert set(beside.index) - set(alone.index) == {name for name in beside.index if name.endswith("_published")}
    np.testing.assert_allclose(beside[alone.index], alone, atol=1e-6)
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())["comparators"]
    assert told["ResponseMLP"]["verdict"].startswith("against ResponseMLP: ")
    unfinished = told["ResponseMLP"]["verdict"].endswith("; it was still improving when it stopped")
    assert unfinished == (told["ResponseMLP"]["converged"] is False)
    assert "pearson_delta" in told["ResponseMLP"]["differences"]
    assert f"CheMoE {told['ResponseMLP']['verdict']}" in " ".join(capsys.readouterr().out.split())
    assert "Against comparators" in (tmp_path / "out" / "report.html").read_text()
    compared = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert set(compared.baseline[~compared.role.isin(["input", "signal"])]) <= set(found.results.baselines)


def test_comparators_of_another_split_or_of_other_outputs_are_refused_in_one_error(trained, tmp_path):
    saved = torch.load(trained.folder.best, weights_only=True)
    paths = []
    for name, change in (
        ("a", {"split_hash": "f" * 64}),
        ("b", {key: saved["torchcell"]["spec"][key][:-1] for key in ("outputs", "center", "scale")}),
    ):
        about = saved["torchcell"] | {"spec": saved["torchcell"]["spec"] | change}
        paths.append(tmp_path / name / "checkpoints" / "best.ckpt")
        paths[-1].parent.mkdir(parents=True)
        torch.save(saved | {"torchcell": about}, paths[-1])
    request = [f"ckpt={trained.folder.best}", f"comparators=[{paths[0]},{paths[1]}]"]
    with pytest.raises(InputError, match=r"a/checkpoints/best.ckpt was trained on the split f{8}.*; .*other outputs"):
        evaluate(configured("evaluate", request))
    with pytest.raises(InputError, match="stand twice"):
        evaluate(configured("evaluate", [request[0], f"comparators=[{trained.folder.best}]"]))


def test_a_checkpoint_predicts_known_and_new_drugs(trained, tmp_path):
    record = trained.datamodule.record("test")
    asked = pd.DataFrame(
        {
            "drug": [record.drug[0], "fresh"],
            "smiles": ["", "CC(=O)Oc1ccccc1C(=O)O"],
            "cell_line": [record.cell_line[0]] * 2,
            "dose_value": [record.dose_value[0]] * 2,
            "time": [record.time[0]] * 2,
        }
    )
    asked.to_csv(tmp_path / "asked.csv", index=False)
    request = [f"ckpt={trained.folder.best}", f"perturbations={tmp_path / 'asked.csv'}", f"out={tmp_path / 'out.csv'}"]
    table = predict(configured("predict", request))
    genes = list(trained.datamodule.spec.outputs)
    assert table.columns.tolist() == ["sample_id", "drug", "cell_line", "dose_value", "time", *genes, "note"]
    assert table["note"].tolist() == [f"no training sample of {name}" for name in asked["drug"]]
    assert np.isfinite(table[genes].to_numpy()).all()
    # On the mean control of the line instead of the sample's own, the change is nearly the same.
    model = trained.scored.results.systems["CheMoE"][0] - record.control[0]
    spec = trained.datamodule.spec
    mean_control = spec.line_control[spec.lines.index(record.cell_line[0])].numpy()
    assert np.corrcoef(model, table.loc[0, genes].to_numpy(float) - mean_control)[0, 1] > 0.5


def test_a_request_has_column_names_of_its_own_by_a_map(trained, tmp_path):
    """The reader of treatments took a map and predict had no key for it."""
    record, spec = trained.datamodule.record("test"), trained.datamodule.spec
    few = record.subset(np.arange(3))
    asked = few.to_anndata()
    asked.obs = asked.obs.rename(columns={"perturbation": "compound", "dose_value": "um"})
    asked.obs["vehicle"] = [False, True, False]
    asked.write_h5ad(tmp_path / "asked.h5ad")
    request = [
        f"ckpt={trained.folder.best}",
        f"perturbations={tmp_path / 'asked.h5ad'}",
        f"out={tmp_path / 'out.h5ad'}",
    ]
    columns = "columns={drug: compound, dose_value: um, is_control: vehicle}"
    table = predict(configured("predict", [*request, columns]))
    assert table["drug"].tolist() == few.drug[[0, 2]].tolist()
    made = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(made.layers["control"], few.control[[0, 2]], rtol=1e-5)
    assert made.var_names.tolist() == list(spec.outputs)
    with pytest.raises(InputError, match="no column 'compond'; the nearest are .'compound'"):
        predict(configured("predict", [*request, "columns={drug: compond}"]))


def test_one_line_and_an_unknown_line(tmp_path):
    with pytest.raises(InputError, match=r"no cell line 'A376'; the lines are A375"):
        train(
            configured(
                "config",
                ["+experiment=simulated_chemoe", f"paths.runs={Path(tmp_path)}", *SMALL, "data.cell_line=A376"],
            )
        )
