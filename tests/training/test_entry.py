"""Wrong names on the command line are answered with the nearest right ones, in one line and with status 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from torchcell.training.entry import _composed, _keys, as_text
from torchcell.training.renamed import new_names


def call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["+experiment=simulated_dnago"], ["simulated_dnago", "simulated_dango"]),
        (["+experiment=simulated_dango", "splt.fold=1"], ["splt.fold", "split.fold"]),
        (["splitt=random"], ["splitt", "split"]),
        (["split=query_disjont"], ["query_disjont", "query_disjoint"]),
        (["model.encoder.dimm=3"], ["model.encoder.dimm", "model.encoder.dim"]),
        (["trainer.max_epoch=3"], ["trainer.max_epoch", "trainer.max_epochs"]),
        (["modle=dango"], ["modle", "model"]),
        (["data=screen", "data.recrod.path=x.csv"], ["data.recrod.path", "data.record.path"]),
        (["split=query_disjoint", "split.folds=2"], ["split.folds", "split.fold"]),
        (["~trainer.patience"], ["trainer.patience", "trainer.early_stopping.patience"]),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(tmp_path, arguments, words):
    answer = call("torchcell.train", *arguments, cwd=tmp_path)
    assert answer.returncode == 1
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    named, nearest = lines[0].split("the nearest are")
    assert words[0] in named or words[0].split(".")[-1] in named
    assert f"'{words[1]}'" in nearest


@pytest.mark.parametrize(
    ("model", "key", "new"),
    [
        ("dango", "model.dim", ["model.encoder.dim"]),
        ("dango", "model.heads", ["model.readout.heads"]),
        ("perturbed_cell_gnn", "model.heads", ["model.readout.parts"]),
        ("cell_graph_transformer", "model.heads", ["model.encoder.heads"]),
        ("cell_graph_transformer", "model.ties.physical", ["model.graph_loss.head_assignments.physical"]),
        ("cell_graph_transformer", "model.hard_mask", ["model=cell_graph_transformer_hard_mask"]),
        ("cell_graph_transformer", "model.channels", []),
        ("cell_graph_transformer", "model.optimizer.lr", []),
    ],
)
def test_an_old_key_has_the_name_that_the_model_at_hand_calls_it_by(model, key, new):
    valid = list(_keys(_composed("config", [f"model={model}"])))
    assert new_names(key, valid) == new


def test_an_old_key_on_the_command_line_is_answered_with_its_new_name(tmp_path):
    answer = call("torchcell.train", "+experiment=simulated_cgt", "model.cold_share=0.1", cwd=tmp_path)
    assert answer.returncode == 1
    new = "model.embedding.imputation.untrained_rate"
    assert answer.stderr.splitlines() == [f"error: model.cold_share is called {new} since torchcell 0.2: write that"]


def test_every_model_takes_a_prior_by_the_same_key(tmp_path):
    """A model's file need not name it: pairwise_factors has no such key, and a user's own model need not."""
    config = ["--cfg", "job", "--package", "model"]
    answer = call("torchcell.train", "model=pairwise_factors", "model.prior=stack", *config, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "prior: stack" in answer.stdout.splitlines()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("data.record.path=/data/k=v/a.csv", "can't be read: quote its value, 'data.record.path=\"/data/k=v/a.csv\"'"),
        ("name=mälzer", "can't be read: quote its value, 'name=\"mälzer\"'"),
        ("name=a,b", "holds a comma: as one text write 'name=\"a,b\"', as a list 'name=[a,b]'; -m runs"),
        ("+seed=3", "'seed' is in the config already: leave out the + before it"),
        ("simulated", "'simulated' is not of the form key=value"),
    ],
)
def test_what_hydra_cannot_read_is_one_line_that_says_how_to_write_it(tmp_path, argument, said):
    answer = call("torchcell.train", argument, "--cfg", "job", cwd=tmp_path)
    assert answer.returncode == 1
    (line,) = answer.stderr.strip().splitlines()
    assert said in line


def test_a_key_without_a_value_is_named_before_anything_is_loaded(tmp_path):
    answer = call("torchcell.train", "data=knowledge_graph", cwd=tmp_path)
    *_, line = answer.stderr.strip().splitlines()
    assert "give data.record.edges=... data.record.nodes=... data.record.supervised=...;" in line
    assert "Error executing job" not in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=abc"], "error: seed=abc: it must be a whole number, as its default 0 is"),
        (["trainer.max_epochs=ten", "model.readout.dropout=x"], "model.readout.dropout=x: it must be a number"),
        (["evaluation.primary=pearsn"], "evaluation.primary=pearsn: no metric is called so; there are ['pearson'"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 trains nothing"),
        (
            ["data=screen", "graph.restrict=screen"],
            "graph.restrict has no effect without a graph: choose one, graph=NAME",
        ),
    ],
)
def test_a_bad_value_is_one_line_before_any_training_and_leaves_no_folder(tmp_path, arguments, said):
    answer = call("torchcell.train", *arguments, "baselines=none", cwd=tmp_path)
    assert answer.returncode == 1
    *_, line = answer.stderr.strip().splitlines()
    assert said in line
    assert "epoch" not in answer.stdout
    assert not list(tmp_path.iterdir())


def test_a_warning_of_ours_is_a_note(tmp_path):
    (tmp_path / "s.csv").write_text(",genes,y\n" + "".join(f"{i},A{i}|B,{i / 7}\n" for i in range(9)))
    given = ("data=screen", "data.record.path=s.csv", "model.encoder.dim=abc")
    answer = call("torchcell.train", *given, cwd=tmp_path)
    assert "note: s.csv: the first column has no name" in answer.stderr
    assert "UserWarning" not in answer.stderr


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("name=2024_11_29", "name='2024_11_29'"),
        ("name=1e5", "name='1e5'"),
        ("name=00012", "name='00012'"),
        ("data.record.path=2024_11_29", "data.record.path='2024_11_29'"),
        ("data.batch_size=1_000", "data.batch_size=1_000"),
        ("data.batch_size=1000", "data.batch_size=1000"),
        ("name='2024_11_29'", "name='2024_11_29'"),
        ("name=screen", "name=screen"),
        ("--multirun", "--multirun"),
    ],
)
def test_a_date_stays_a_text(argument, expected):
    assert as_text(argument) == expected


def test_an_unforeseen_failure_says_why_in_one_line_before_its_traceback(tmp_path):
    answer = call("torchcell.train", "data.subset=many", "baselines=none", cwd=tmp_path)
    assert answer.returncode == 1
    error, traceback = answer.stderr.split("Traceback", 1)
    assert error.strip().splitlines()[-1].startswith("error: TypeError: ")
    assert "subset" in traceback


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "embed", "profile", "collect", "reproduce", "data"])
def test_help_names_the_verb_and_an_example(tmp_path, verb):
    answer = call(f"torchcell.{verb}", "--help", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert f"torchcell.{verb}" in answer.stdout


def test_help_loads_no_torch(tmp_path):
    """``--help`` must be quick; what makes it slow is torch, so it must not be imported."""
    script = "import sys; sys.argv = ['train', '--help']\n"
    script += "import runpy, atexit; atexit.register(lambda: print('TORCH', 'torch' in sys.modules))\n"
    script += "runpy.run_module('torchcell.train', run_name='__main__')"
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "TORCH False" in answer.stdout, answer.stderr


@pytest.mark.parametrize("verb", ["predict", "embed"])
def test_a_missing_checkpoint_is_one_line(tmp_path, verb):
    answer = call(f"torchcell.{verb}", "ckpt=no.ckpt", "perturbations=x.csv", cwd=tmp_path)
    assert answer.returncode == 1
    loading, line = answer.stderr.strip().splitlines()
    assert loading == f"torchcell.{verb}: loading ..."
    assert line.startswith("error: no checkpoint no.ckpt")


def test_a_line_comes_at_once_and_not_after_the_imports(tmp_path):
    """torch and lightning take 5 s to load, on a busy machine half a minute, in which nothing was said."""
    script = "import sys, runpy; from torchcell.training import entry\n"
    script += "entry.say = lambda text: print(text, 'torch' in sys.modules)\n"
    script += "sys.argv = ['train', 'data=screen', 'graph=none', 'data.record.path=no.csv', 'name=mine', 'seed=3']\n"
    script += "runpy.run_module('torchcell.train', run_name='__main__', alter_sys=True)"
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert answer.stdout.startswith("torchcell.train: mine, seed 3: loading ... False\n"), answer.stderr


@pytest.mark.parametrize("option", [["--help"], ["--cfg", "job"], ["--info", "searchpath"]])
def test_what_only_shows_the_config_loads_nothing_and_says_nothing(tmp_path, option):
    answer = call("torchcell.train", *option, cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_only_the_first_of_several_processes_says_that_it_loads(tmp_path):
    given = ("torchcell.predict", "ckpt=no.ckpt", "perturbations=x.csv")
    answer = call(*given, cwd=tmp_path, RANK="1", WORLD_SIZE="2")
    assert "loading" not in answer.stderr


def test_a_users_own_conf_folder_is_searched(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    mine = "# @package _global_\nname: mine\nseed: 17\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(mine)
    answer = call("torchcell.train", "+experiment=mine", "--cfg", "job", cwd=tmp_path)
    assert "name: mine" in answer.stdout
    assert "seed: 17" in answer.stdout


def test_a_users_own_model_and_benchmark_find_each_other_as_ours_do(tmp_path):
    """A variant of DANGO, tuned on the user's benchmark for its base: its own line stays."""
    for path, text in {
        "model/mine.yaml": "defaults: [dango]\nlayers: 1\n",
        "model/dango/screens.yaml": "# @package _global_\nmodel: {layers: 3, dim: 96}\ntrainer: {max_epochs: 7}\n",
        "benchmark/screens.yaml": "# @package _global_\ndefaults: [override /data: synthetic, override /graph: synthetic]\n",
    }.items():
        (tmp_path / "conf" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / path).write_text(text)
    answer = call("torchcell.train", "benchmark=screens", "model=mine", "--cfg", "job", cwd=tmp_path)
    found = yaml.safe_load(answer.stdout)
    assert (found["name"], found["trainer"]["max_epochs"]) == ("screens_mine", 7)
    assert (found["model"]["layers"], found["model"]["dim"]) == (1, 96)


ENDING = """
import sys
from torchcell.io.errors import InputError
from torchcell.training.entry import run_entry

def task(cfg):
    if cfg.name == "trainer":  # which hides Ctrl-C
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    if cfg.name == "interrupted":
        raise KeyboardInterrupt
    if cfg.seed == 1:
        raise InputError("seed 1 is bad")
    print("done", cfg.seed)

run_entry(task, "config")
"""


def ending(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ENDING, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["interrupted", "trainer"])
def test_ctrl_c_is_one_line_in_every_verb(tmp_path, name):
    answer = ending(tmp_path, f"name={name}")
    assert answer.returncode == 130
    assert answer.stderr.splitlines()[1:] == ["error: interrupted by Ctrl-C; no file was left half-written"]


def test_a_run_of_many_that_fails_says_so_itself_and_the_others_are_done(tmp_path):
    """Hydra's "Error executing job with overrides" came first, and only after all runs."""
    answer = ending(tmp_path, "-m", "seed=0,1,2", f"hydra.sweep.dir={tmp_path}")
    assert answer.returncode == 1
    assert "Error executing job" not in answer.stdout + answer.stderr
    assert [line for line in answer.stdout.splitlines() if line.startswith("done")] == ["done 0", "done 2"]
    said = [line for line in answer.stderr.splitlines() if line.startswith("error")]
    assert said == [
        "error: run 1 (seed=1): seed 1 is bad",
        "error: 1 run(s) failed, see above: run 1; the others are done",
    ]
    assert "Traceback" not in answer.stderr
