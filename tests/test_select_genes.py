"""``python -m torchcell.data select-genes`` writes what a run would choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from torchcell.io.errors import InputError
from torchcell.select_genes import select_genes
from torchcell.training import build as assemble
from torchcell.training.entry import conf_dir

SELECTION = (
    "data.genes.selection={_target_: torchcell.cells.gene_selection.GeneSelection, n_genes: 9, "
    "sources: [{_target_: torchcell.cells.gene_selection.Perturbed, quota: 3}]}"
)
SMALL = [
    "data=simulated_perturbseq",
    "split=unseen_perturbation",
    "data.record.n_genes=40",
    "data.record.n_regulators=16",
]
SMALL += ["data.record.n_doubles=2", "data.record.cells_per_condition=4", "data.record.n_lines=1"]


def test_a_table_is_written_with_sources_and_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        phases = "callbacks.curriculum.phases=[{epoch: 0, genes: 4}, {epoch: 1, genes: null}]"
        chosen = [*SMALL, SELECTION, "callbacks=curriculum", phases]
        cfg = compose("select_genes", [*chosen, f"out={tmp_path / 'genes.csv'}"])
    selected = select_genes(cfg)
    table = pd.read_csv(tmp_path / "genes.csv")
    assert table["gene"].tolist() == selected.genes.tolist()
    assert table["source"].value_counts().to_dict() == {"highly_variable": 6, "perturbed": 3}
    assert table["phase"].tolist() == [0] * 4 + [1] * 5
    told = capsys.readouterr().out
    assert "9 of 40 genes of simulated_perturbseq" in told
    assert "phase 0  4 genes: perturbed, highly_variable\nphase 1  9 genes: highly_variable\n" in told


@pytest.mark.parametrize(
    "how",
    [["data.n_genes=7"], [SELECTION], ["data.n_genes=7", "data.subset=14"], [SELECTION, "data.max_cells=70"]],
)
def test_the_command_chooses_what_a_run_does(tmp_path: Path, how: list[str]) -> None:
    """It refused data.n_genes alone and took all cells, whatever data.max_cells said."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("select_genes", [*SMALL, *how, "seed=3", f"out={tmp_path / 'genes.csv'}"])
    select_genes(cfg)
    data = assemble.datamodule(cfg)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "genes.csv"), data.tables()["genes.csv"])
    assert data.outputs(data.record_whole) == tuple(data.tables()["genes.csv"]["gene"])


def test_data_that_choose_no_genes_say_so() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("select_genes", SMALL)
    with pytest.raises(InputError, match="these data choose no genes; set data.genes.selection.*or data.n_genes"):
        select_genes(cfg)


@pytest.mark.long
def test_the_verb_is_reached_through_the_data_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torchcell.data", "select-genes", *SMALL, SELECTION, "out=mine.tsv"]
    environment = {**os.environ, "PYTHONPATH": str(conf_dir().parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "mine.tsv", sep="\t")) == 9
    wrong = subprocess.run(
        [*command[:4], "dat=kang2018"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: ")
