"""Too little memory is told in one line with the overrides of the command at hand that need less."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from small_runs import composed

from torchcell.io.errors import InputError
from torchcell.training.entry import conf_dir
from torchcell.training.memory import advice, memory_explained

SAYINGS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999 bytes."),
    MemoryError("Unable to allocate 74.5 GiB for an array with shape (100000, 100000) and data type float64"),
    MemoryError("std::bad_alloc"),
)


@pytest.mark.parametrize("saying", SAYINGS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("verb", "size"), [("predict", "16"), ("evaluate", "16"), ("embed", "2048")])
def test_the_error_names_a_smaller_batch(verb, size, saying):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(verb, ["ckpt=best.ckpt"])
    with (
        pytest.raises(InputError, match=rf"out of memory on .*: batch_size={size} "),
        memory_explained(cfg, command=verb),
    ):
        raise saying


def test_a_batch_of_one_cannot_be_made_smaller():
    assert advice(OmegaConf.create({"batch_size": 1}), "predict") == []
    assert advice(OmegaConf.create({"batch_size": 2}), "predict")[0].startswith("batch_size=1 ")


def test_training_names_what_needs_less():
    found = advice(composed("data.hops=2", "data.batch_size=64"))
    assert found[0].startswith("data.batch_size=32 trainer.accumulate_grad_batches=2")
    assert found[1].startswith("data.eval_batch_size=")
    assert any(each.startswith("data.hops=1") for each in found)


def test_the_sizes_of_a_model_are_found_at_any_depth():
    cfg = OmegaConf.create(
        {"model": {"hidden": 8, "encoder": {"layers": 4, "dim": 64, "inner": {"dim": 32}, "heads": 2}}}
    )
    assert advice(cfg)[-4:] == [
        "model.encoder.dim=32 (another model)",
        "model.encoder.inner.dim=16 (another model)",
        "model.encoder.layers=2 (another model)",
        "model.hidden=4 (another model)",
    ]
    assert "model.encoder.dim=32 (another model)" in advice(composed("model=cell_graph_transformer"))


def test_a_batch_that_the_data_choose_can_be_made_smaller_too():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        train, profile = (compose(name, ["data=screen", "data.record.path=x.csv"]) for name in ("config", "profile"))
    assert advice(train)[0].startswith("data.batch_size=512 trainer.accumulate_grad_batches=2")
    assert advice(profile, "profile")[0].startswith("profile.batch_size=512 ")


def test_a_command_names_no_key_that_it_does_not_have():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        profile = compose("profile", ["profile.batch_size=28"])
        selection = compose("select_genes", ["out=genes.csv"])
    assert advice(profile, "profile") == ["profile.batch_size=14 (another measurement)"]
    assert advice(selection, "select_genes") == []


def test_another_failure_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="shapes"), memory_explained(OmegaConf.create({"batch_size": 8})):
        raise RuntimeError("shapes cannot be multiplied")


def test_every_command_says_it_in_one_line(tmp_path):
    script = (
        "from torchcell.training.entry import run_entry\n"
        "def task(cfg):\n"
        "    raise MemoryError('Unable to allocate 74.5 GiB for an array')\n"
        "run_entry(task, 'predict')\n"
    )
    command = [sys.executable, "-c", script, "ckpt=best.ckpt", "batch_size=1024"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == 1
    loading, line = answer.stderr.strip().splitlines()
    assert "loading" in loading
    assert line.startswith("error: out of memory on this machine (asked for 74.5 GiB)")
    assert "batch_size=256 " in line
