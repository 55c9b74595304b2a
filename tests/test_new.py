"""``torchcell.new``: a linear model a task that trains, is scored and predicts as it was written."""

from __future__ import annotations

import errno
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from model_contract import CONTRACT, DATA, data_of, spec_of, trained
from omegaconf import OmegaConf
from small_runs import CELLS, RESPONSE, SCREEN, composed
from test_predict_cells import counts

from torchcell.io.errors import InputError
from torchcell.new import main
from torchcell.predict import predict
from torchcell.train import train
from torchcell.training import model_files
from torchcell.training.entry import conf_dir
from torchcell.training.model_files import TEMPLATES, new_model

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("screen", "drug_response", "cells", "knowledge_graph")
REQUESTS = {
    "screen": {"genes": ["G0001|G0002", "G0002|G0003"]},
    "drug_response": {"perturbation": ["CCO", "CCN"], "smiles": ["CCO", "CCN"], "cell_line": ["A375", "PC3"], "dose_value": ["1", "10"], "time": ["24", "24"]},
    "cells": {"perturbation": ["G0001", "G0002+G0001"]},
}  # fmt: skip
SMALL = {
    "screen": SCREEN,
    "drug_response": tuple(one for one in RESPONSE if "model." not in one),
    "cells": CELLS,
    "knowledge_graph": ("+experiment=simulated_hgt", "data.record.n_genes=60", "data.batch_size=64"),
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory, from which Python imports as ``python -m`` does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


@pytest.fixture
def checkout(here, monkeypatch) -> Path:
    """A checkout of no more than its folders."""
    for folder in ("torchcell/cells/models", "conf/model"):
        (here / folder).mkdir(parents=True)
    monkeypatch.setattr(model_files, "PACKAGE", here / "torchcell")
    monkeypatch.setattr(model_files, "conf_dir", lambda: here / "conf")
    return here


def test_every_task_has_a_template():
    assert tuple(TEMPLATES) == tuple(sorted(TASKS))


@pytest.mark.parametrize("task", TASKS)
def test_a_new_model_trains_is_scored_and_predicts(task, here, capsys):
    name = f"plain_{task}"
    assert main([name, f"task={task}"]) == 0
    said = capsys.readouterr().out
    assert str(here / f"{name}.py") in said
    benchmark, model = re.search(r"next: python -m torchcell\.train benchmark=(\w+) model=(\w+)\n", said).groups()
    assert model == name
    assert composed(f"benchmark={benchmark}").data._target_.split(".")[1] == task
    cfg = composed(
        *SMALL[task], "~model", "baselines=none", "trainer.max_epochs=2", "evaluation.n_boot=20", f"paths.runs={here}"
    )
    OmegaConf.set_struct(cfg, False)
    cfg.model = OmegaConf.load(here / "conf" / "model" / f"{name}.yaml")
    trained = train(cfg)
    assert trained.scored is not None
    assert trained.scored.results.model == "".join(map(str.title, name.split("_")))
    if task in REQUESTS:
        pd.DataFrame(REQUESTS[task]).to_csv(here / "asked.csv", index=False)
        asked = [f"ckpt={trained.folder.best}", "perturbations=asked.csv", f"trust=[{name}]"]
        asked += ["out=out.h5ad"] if task != "screen" else ["out=out.parquet"]
        if task == "cells":
            counts(trained).write_h5ad(here / "controls.h5ad")
            asked.append("controls=controls.h5ad")
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            assert len(predict(compose("predict", asked))) >= 2


@pytest.mark.parametrize("task", TASKS)
def test_a_new_model_keeps_the_contract_of_all_models(task, here):
    name = f"sound_{task}"
    new_model(name, task)
    model = OmegaConf.load(here / "conf" / "model" / f"{name}.yaml")
    cfg = composed(*DATA[spec_of(model)], "~model")
    OmegaConf.set_struct(cfg, False)
    cfg.model = model
    OmegaConf.resolve(cfg)
    case = trained(cfg, data_of(cfg))
    for check in CONTRACT:
        check(case, here)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_written_is_as_clean_as_the_rest_of_the_house(task, here):
    code, _, _ = new_model(f"clean_{task}", task)
    ruff = [sys.executable, "-m", "ruff"]
    place = ["--stdin-filename", str(ROOT / "torchcell" / task / "models" / code.name), "-"]
    for verb in (["check"], ["format", "--check"]):
        answer = subprocess.run(
            [*ruff, *verb, *place], cwd=ROOT, input=code.read_text(), capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout
    assert len(code.read_text().splitlines()) < 60


def test_in_a_checkout_it_stands_beside_the_others_of_its_task(checkout, capsys):
    assert main(["plain", "task=cells"]) == 0
    code, knobs = checkout / "torchcell/cells/models/plain.py", checkout / "conf/model/plain.yaml"
    assert code.is_file()
    assert OmegaConf.load(knobs)._target_ == "torchcell.cells.models.plain.Plain"
    assert "trust" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["3a", "task=cells"], "'3a' can't name a model"),
        (["my-model", "task=cells"], "'my-model' can't name a model"),
        (["class", "task=cells"], "'class' can't name a model"),
        (["true", "task=cells"], "'true' can't name a model"),
        (["___", "task=cells"], "'___' can't name a model"),
        (["model", "task=cells"], "'model': the class would be Model, a name that its file uses; try my_model"),
        (["dango", "task=screen"], r"dango is taken: .*conf/model/dango, .*conf/model/dango.yaml; choose another name"),
        (["base", "task=screen"], "base is taken: .*conf/model/base"),
        (["json", "task=screen"], "json is taken: .*json"),
        (["plain", "task=screens"], "no task 'screens'; did you mean screen[?] Choose one of cells, drug_response, "),
        (["plain", "tsk=screen"], "'tsk=screen' is not task=TASK; choose one of cells, "),
    ],
)
def test_what_can_not_be_is_one_line_and_leaves_no_file(arguments, said, here, capsys):
    assert main(arguments) == 1
    line, nothing = capsys.readouterr().err.split("\n")
    assert re.match(f"error: {said}", line), line
    assert nothing == ""
    assert not list(here.iterdir())


@pytest.mark.parametrize("there", ["plain.py", "conf/model/plain.yaml", "conf/model/plain/costanzo2010.yaml"])
def test_nothing_that_is_there_is_written_over(there, here):
    (here / there).parent.mkdir(parents=True, exist_ok=True)
    (here / there).write_text("mine")
    with pytest.raises(InputError, match="plain is taken: "):
        new_model("plain", "cells")
    assert [path.read_text() for path in here.rglob("*") if path.is_file()] == ["mine"]


def test_a_second_file_that_can_not_be_written_takes_the_first_with_it(here, monkeypatch):
    opened = Path.open

    def full(path: Path, mode: str = "r", *given: object, **more: object):
        if path.suffix == ".yaml" and mode == "x":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *given, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"plain\.yaml can't be written \(No space left on device\); nothing was kept"):
        new_model("plain", "cells")
    assert not [path for path in here.rglob("*") if path.is_file()]


@pytest.mark.long
@pytest.mark.mirror
def test_a_line_each_writes_and_trains_a_model_on_real_cells(mirror, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (
        ["torchcell.new", "plain_cells", "task=cells"],
        ["torchcell.train", "benchmark=papalexi2021", "model=plain_cells", "trainer.max_epochs=3", "paths.runs=runs"],
    ):
        answer = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
    assert "PlainCells: " in answer.stdout
    GlobalHydra.instance().clear()
