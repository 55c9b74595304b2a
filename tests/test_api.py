"""The Python API does what the verbs do: ``import torchcell as tc``, ``tc.fit``, ``tc.load``, ``tc.records``."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import torchcell as tc
from torchcell.api.outcome import Outcome, Plots
from torchcell.io.errors import InputError
from torchcell.io.in_memory import InMemory
from torchcell.io.tables import read_table
from torchcell.training.entry import composed

PACKAGE = Path(tc.__file__).parent
SMALL = ("+debug=fast", "data.record.n_sets=400", "data.subset=null", "evaluation.n_boot=20", "seed=3")
"""Of a run of seconds."""
FEW = ("baselines=screen", *(f"baselines.{name}=null" for name in ("stack", "gradient_boosting", "embedding_sum_mlp")))
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tc.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("api"))
        return tc.fit("simulated_dango", *SMALL, *FEW, f"paths.runs={Path.cwd()}/runs")


def test_no_name_of_the_api_is_a_modules_name_and_verbs_leave_it_as_it_is():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert not set(tc.__all__) & ({*MODULES} | folders)
    for name in MODULES:
        importlib.import_module(f"torchcell.{name}")
    assert inspect.isfunction(tc.fit)
    assert inspect.isfunction(tc.load)
    assert inspect.isclass(tc.Run)
    assert tc.records.screen(pd.DataFrame({"genes": ["A|B", "C"], "y": [1.0, 2.0]})).data == "screen"
    assert set(tc.__all__) <= set(dir(tc))


def test_an_unknown_name_names_those_that_are_there():
    with pytest.raises(AttributeError, match="has no attribute 'fitt'; it has Run, __version__, fit"):
        tc.fitt  # noqa: B018


def test_the_api_is_typed_and_every_name_has_an_example():
    assert (PACKAGE / "py.typed").is_file()
    for named in (tc.fit, tc.judge, tc.load, tc.Run, tc.records.screen, tc.records.cells, InMemory):
        assert ">>>" in (named.__doc__ or ""), named
        for parameter in inspect.signature(named).parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, (named, parameter)
    members = [
        member for kind in (tc.Run, Outcome, Plots) for name, member in vars(kind).items() if not name.startswith("_")
    ]
    lacking = [member for member in members if callable(member) and ">>>" not in (member.__doc__ or "")]
    lacking += [member for member in members if isinstance(member, property) and ">>>" not in (member.__doc__ or "")]
    assert lacking == []


class AnyOutputWhereNoneIsShown(doctest.OutputChecker):
    """An example without output may print: tables of a run, say."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.parametrize(
    "name",
    ["api.start", "api.run", "api.outcome", "api.judge", "api.records", "io.in_memory", "io.progress", "io.console"],
)
def test_examples_are_true(name, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "examples"  # of all of them, so that their run is trained once
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    runner = doctest.DocTestRunner(AnyOutputWhereNoneIsShown())
    module = importlib.import_module(f"torchcell.{name}")
    for found in doctest.DocTestFinder().find(module, module.__name__):
        runner.run(found)
    assert runner.summarize().attempted
    assert not runner.summarize().failed


# fit, load ------------------------------------------------------------------------------------------------------------


def test_fit_composes_what_the_command_line_composes(monkeypatch, tmp_path):
    from torchcell.api.start import compose

    monkeypatch.chdir(tmp_path)
    assert compose("simulated_cgt", "seed=2", "ckpt_path=last") == composed(
        "config", ["+experiment=simulated_cgt", "seed=2", "ckpt_path=last"]
    )
    assert compose("model=perturbed_cell_gnn").ckpt_path == "auto"
    assert compose("simulated_cgt", "overwrite=true").ckpt_path is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("simulated_cgtt",), "the nearest are .*simulated_cgt"),
        (("simulated_cgt", "modl.encoder.dim=3"), "nearest are"),
        (("simulated_cgt", "-m", "seed=0,1"), "-m is for the command line"),
        (("data=screen",), "these keys have no value yet: give data.record.path"),
    ],
)
def test_what_does_not_compose_is_one_line(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as error:
        tc.fit(*given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_own_choices_in_a_folder_conf_are_found(tmp_path, monkeypatch):
    from torchcell.api.start import compose

    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /model: perturbed_cell_gnn\nseed: 7\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert compose("mine").seed == 7


def test_a_model_of_your_own_is_trusted_after_fit_and_named_to_load(tmp_path, monkeypatch):
    from torchcell.training.model_files import new_model

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    new_model("mine_of_api", "screen")
    run = tc.fit("model=mine_of_api", *SMALL, "baselines=none")
    assert len(run.predict(["G0001"])) == 1
    with pytest.raises(InputError, match="mine_of_api"):
        tc.load(run.path).predict(["G0001"])
    assert len(tc.load(run.path, trust=["mine_of_api"]).predict(["G0001"])) == 1


def test_a_run_that_is_finished_is_loaded_and_not_trained_again(run, capsys, monkeypatch):
    monkeypatch.chdir(run.path.parents[2])
    written = (run.path / "history.csv").stat().st_mtime_ns
    again = tc.fit("simulated_dango", *SMALL, *FEW, f"paths.runs={run.path.parents[1]}")
    assert "is finished and was loaded" in capsys.readouterr().out
    assert again.path == run.path
    assert (again.path / "history.csv").stat().st_mtime_ns == written


def test_load_takes_a_folder_and_a_checkpoint_and_says_where_runs_are(run):
    assert tc.load(run.path).verdict == tc.load(run.ckpt).verdict == run.verdict
    with pytest.raises(InputError, match=f"is no folder of a run.*below it are .*{run.path.name}"):
        tc.load(run.path.parent)
    with pytest.raises(InputError, match="no checkpoint"):
        tc.load(run.path / "checkpoints" / "gone.ckpt")


def test_load_refuses_a_folder_that_leads_elsewhere_and_a_pickle(run, tmp_path):
    import pickle
    import shutil

    copied = tmp_path / "copied"
    shutil.copytree(run.path, copied)
    (copied / "metrics.json").unlink()
    (copied / "metrics.json").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("{}")
    with pytest.raises(InputError, match="leads to files outside of it"):
        tc.load(copied)
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps(Path))
    with pytest.raises(InputError, match="was not loaded|cannot be read"):
        tc.load(tmp_path / "bad.ckpt")


# Run ------------------------------------------------------------------------------------------------------------------


def test_predict_gives_what_the_verb_writes_for_a_list_and_for_a_table(run, tmp_path, monkeypatch):
    from torchcell.predict import predict

    sets = ["G0001|G0002", "G0003"]
    table = pd.DataFrame({"genes": sets, "sample_id": ["one", "two"]})
    table.to_csv(tmp_path / "sets.csv", index=False)
    for system in ("model", "low_rank_als"):
        out = tmp_path / f"{system}.parquet"
        asked = [f"ckpt={run.ckpt}", f"perturbations={tmp_path / 'sets.csv'}", f"out={out}", f"system={system}"]
        predict(composed("predict", asked))
        pd.testing.assert_frame_equal(run.predict(table, system=system), pd.read_parquet(out), check_dtype=False)
    of_list = run.predict(sets)
    assert of_list["genes"].tolist() == ["G0001|G0002", "G0003"]
    np.testing.assert_array_equal(of_list["gene_interaction"], run.predict(table)["gene_interaction"])
    nested = run.predict([["G0001", "G0002"], ["G0003"]])
    np.testing.assert_array_equal(of_list["gene_interaction"], nested["gene_interaction"])


def test_predict_writes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(run.path.rglob("*"))
    run.predict(["G0001|G0002"])
    assert list(tmp_path.iterdir()) == []
    assert sorted(run.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pd.DataFrame({"gene": ["A"]}), "the perturbations given .* has no column 'genes'.*did you mean genes -> gene"),
        (["G0001|NOPE"], "NOPE"),
        ([], "list with entries"),
        (3, "must be a DataFrame, an AnnData"),
        (anndata.AnnData(np.ones((2, 2))), "a table is needed here"),
        (pd.DataFrame({"genes": ["G0001", "", "G0002|G0002"]}), "row 3"),
    ],
)
def test_a_request_that_can_not_be_read_is_one_line(run, given, said):
    with pytest.raises(InputError, match=said) as error:
        run.predict(given)
    assert "\n" not in str(error.value)


def test_what_was_left_out_is_a_warning(run):
    with pytest.warns(UserWarning, match="left out: 1"):
        assert len(run.predict(["G0001", "NOPE"], unknown_genes="drop")) == 1


def test_a_run_shows_its_verdict_table_and_plot(run):
    assert run.verdict.startswith("Dango: ")
    assert run.verdict in repr(run)
    page = run._repr_html_()
    assert "<img alt" in page
    assert "low_rank_als" in page
    assert set(run.metrics["system"]) >= {"Dango", "low_rank_als"}
    assert len(run.history) >= 1
    assert (run.comparisons["role"] == "primary").any()
    assert run.config["seed"] == 3
    assert [label.get_text() for label in run.plot.forest().axes[0].get_yticklabels()][-1] == "Dango"
    with pytest.raises(InputError, match="no metric 'peason'; the nearest are .*pearson"):
        run.plot.forest("peason")


def test_a_strangers_run_cannot_write_into_the_notebook(run, tmp_path):
    """Names and sentences of a run are text; its page is shown in a frame without scripts."""
    import json
    import shutil

    copied = tmp_path / "copied"
    shutil.copytree(run.path, copied)
    evil = "<script>alert(1)</script>"
    summary = json.loads((copied / "metrics.json").read_text())
    summary["verdict"]["text"] = summary["verdict"]["color"] = evil
    (copied / "metrics.json").write_text(json.dumps(summary))
    table = pd.read_csv(copied / "metrics.csv").replace("low_rank_als", evil)
    table.to_csv(copied / "metrics.csv", index=False)
    (copied / "report.html").write_text(evil)
    theirs = tc.load(copied)
    for shown in (theirs._repr_html_(), theirs.report()._repr_html_()):
        assert evil not in shown
    assert theirs.report()._repr_html_().startswith('<iframe sandbox=""')


def test_a_run_without_scores_says_so(run, tmp_path):
    import shutil

    (tmp_path / "checkpoints").mkdir()
    shutil.copy(run.ckpt, tmp_path / "checkpoints" / "best.ckpt")
    bare = tc.load(tmp_path)
    assert "not scored yet" in repr(bare)
    assert "not scored yet" in bare._repr_html_()
    assert len(bare.predict(["G0001"])) == 1
    with pytest.raises(InputError, match="metrics.json is not there: the run was not scored"):
        _ = bare.verdict


def test_embed_gives_what_the_verb_writes(run, tmp_path):
    from torchcell.embed import embed

    asked = [f"ckpt={run.ckpt}", f"out={tmp_path / 'e.h5ad'}", "part=test", "umap=false"]
    embed(composed("embed", asked))
    verb, own = anndata.read_h5ad(tmp_path / "e.h5ad"), run.embed(part="test")
    np.testing.assert_array_equal(verb.X, own.X)
    pd.testing.assert_frame_equal(verb.obs, own.obs, check_dtype=False, check_categorical=False)
    genes = run.embed(part="test", of="genes")
    np.testing.assert_array_equal(genes.X, anndata.read_h5ad(tmp_path / "e_genes.h5ad").X)
    assert run.embed(["G0001|G0002"]).n_obs == 1


# records --------------------------------------------------------------------------------------------------------------


def screen_of(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    sets = ["|".join(sorted(rng.choice([f"G{i:02d}" for i in range(40)], 2, replace=False))) for _ in range(n)]
    return pd.DataFrame({"genes": sets, "fitness": rng.normal(size=n)}).drop_duplicates("genes")


def test_a_screen_in_memory_trains_as_its_file_does_and_is_found_again(tmp_path, monkeypatch):
    from torchcell.evaluate import evaluate

    monkeypatch.chdir(tmp_path)
    small = ("baselines=none", "+debug=fast", "data.subset=null", "evaluation.n_boot=20", "split=random")
    table = screen_of(200)
    table.to_parquet("mine.parquet")
    run = tc.fit(tc.records.screen(table), *small)
    of_file = tc.fit("data=screen", "data.record.path=mine.parquet", "name=of_file", *small)
    columns = ["system", "metric", "value"]
    pd.testing.assert_frame_equal(run.metrics[columns], of_file.metrics[columns])
    assert len(list((tmp_path / "runs" / "records").iterdir())) == 1
    monkeypatch.chdir(tmp_path.parent)
    before = run.metrics
    evaluate(
        composed(
            "evaluate",
            [f"ckpt={run.ckpt.absolute() if run.ckpt.is_absolute() else run.path / 'checkpoints/best.ckpt'}"],
        )
    )
    pd.testing.assert_frame_equal(before, tc.load(run.path).metrics)


def test_records_of_other_values_are_another_run_and_of_the_same_the_same_file(tmp_path, monkeypatch):
    from torchcell.api.start import compose

    monkeypatch.chdir(tmp_path)
    table = screen_of(60)
    paths = [
        compose(tc.records.screen(one)).data.record.path
        for one in (table, table.copy(), table.assign(fitness=-table.fitness))
    ]
    assert paths[0] == paths[1] != paths[2]
    assert len(list((tmp_path / "runs" / "records").iterdir())) == 2


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pd.DataFrame({"genes": ["A|B", "A|A"], "y": [1.0, 2.0]}), "a gene named twice"),
        (pd.DataFrame({"genes": ["A", "B"]}), "no column of numbers to learn from"),
        (pd.DataFrame({"genes": ["A", 3], "y": [1.0, 2.0]}), "column of several types"),
        ("screen.csv", "tc.records.screen takes a DataFrame"),
    ],
)
def test_records_that_can_not_be_read_are_one_line(table, said):
    with pytest.raises(InputError, match=said):
        tc.records.screen(table)


def test_an_unknown_key_of_records_names_the_nearest():
    with pytest.raises(InputError, match="no key 'phenotype'; the nearest are .*phenotypes"):
        tc.records.screen(screen_of(20), phenotype="fitness")


def cells_of(sparse: bool = True) -> anndata.AnnData:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    labels = np.repeat(["ctrl", "G1", "G2", "G1+G2"], [40, 12, 12, 12])
    counts = rng.poisson(2.0, (len(labels), 6)).astype(np.float32) + 1
    obs = pd.DataFrame({"perturbation": labels, "line": np.where(np.arange(len(labels)) % 2, "A", "B")})
    obs.index = [f"c{i}" for i in range(len(obs))]
    return anndata.AnnData(
        csr_matrix(counts) if sparse else counts, obs, pd.DataFrame(index=[f"G{i}" for i in range(6)])
    )


@pytest.mark.parametrize("sparse", [True, False])
def test_cells_in_memory_are_read_as_their_file(sparse, tmp_path):
    from torchcell.cells.table import cells_file

    adata = cells_of(sparse)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    own = tc.records.cells(adata, control="ctrl").record
    of_file = cells_file(tmp_path / "cells.h5ad", "counts", "ctrl")
    assert own.fingerprint() == of_file.fingerprint()
    assert repr(tc.records.cells(adata, control="ctrl")) == "76 cells, 6 measured genes; 3 perturbed conditions"
    with pytest.raises(InputError, match="the cells given holds no layer 'gone'"):
        tc.records.cells(adata, control="ctrl", matrix={"layer": "gone"})
    with pytest.raises(InputError, match="no key 'min_cell'; the nearest are .*min_cells"):
        tc.records.cells(adata, control="ctrl", conditions={"min_cell": 3})


# InMemory -------------------------------------------------------------------------------------------------------------


def test_a_table_in_memory_is_read_as_its_parquet_file(tmp_path):
    table = pd.DataFrame(
        {"genes": [["A", "B"], ["C"]], "x": [1, 2], "t": pd.Categorical([" u", "v"]), "n": [None, "m"]}
    )
    table.index = pd.Index(["i", "j"], name="sample_id")
    table.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(
        read_table(InMemory(table)), read_table(tmp_path / "t.parquet"), check_like=True, check_dtype=False
    )


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_lists_every_verb_with_a_line_and_hands_over():
    from torchcell.__main__ import VERBS, about

    def answer(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "torchcell", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = answer().stdout
    for verb in VERBS:
        assert f"  {verb:<10} {about(verb)}" in shown
    entries = {path.stem for path in PACKAGE.glob("*.py") if "__main__" in path.read_text()}
    assert {*VERBS, "select_genes", "__main__"} == entries
    wrong = answer("trian")
    assert wrong.returncode == 2
    assert wrong.stderr == "error: no verb 'trian'; the nearest are ['train']\n"
    assert answer("--version").stdout == f"torchcell {tc.__version__}\n"
    assert answer("new", "--help").stdout.startswith("usage: python -m torchcell.new")


def test_importing_the_package_is_quick_because_nothing_is_imported():
    script = (
        "import sys, torchcell as tc; print(len([m for m in sys.modules if m.startswith('torchcell')]), dir(tc)[-5:])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("1 ")
