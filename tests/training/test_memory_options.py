"""The report of a run that saves memory tells what that costs and saves, measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from linear_screen import AdditiveScreen
from omegaconf import DictConfig, OmegaConf
from small_runs import SCREEN, composed

from torchcell.core.spec import Spec
from torchcell.io.errors import InputError
from torchcell.report.sections import Section
from torchcell.train import train
from torchcell.training import build as assemble
from torchcell.training import memory as memory_options
from torchcell.training.entry import conf_dir
from torchcell.training.memory import advice, options_on
from torchcell.training.memory import memory_options as memory_options_of

SMALL = ["n_genes=60", "n_regulators=16", "n_doubles=0", "cells_per_condition=8"]
THREE = ("model.encoder.layers=3", "model.encoder.dim=16", "model.encoder.heads=1")
CPU = torch.device("cpu")


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        small = [f"data.record.{size}" for size in SMALL]
        return compose("config", ["+experiment=simulated_perturbseq", *small, *overrides])


def sections(*overrides: str, samples_per_s: float = 1e6) -> list[Section]:
    cfg = config(*THREE, *overrides)
    return memory_options.memory_sections(cfg, assemble.datamodule(cfg), CPU, samples_per_s)


def share(section: Section, setting: str) -> float:
    """Memory of a row over the plain one's."""
    assert section.table is not None
    return float(section.table.set_index("setting").loc[setting, "MB of tensors, of plain"].removesuffix("x"))


def test_settings_that_save_memory_are_known_by_their_value():
    assert options_on(config()) == {}
    assert options_on(config("trainer.precision=32")) == {}
    assert options_on(config("trainer.precision=64-true")) == {}, "not one that saves memory"
    on = {"model.encoder.attention": "neighbors", "model.encoder.gradient_checkpointing": True}
    assert options_on(config("model=gene_set_transformer_sparse")) == on
    assert options_on(config("trainer.precision=bf16-mixed")) == {"trainer.precision": "bf16-mixed"}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("gene_set_transformer", {"model.encoder.attention", "model.encoder.gradient_checkpointing"}),
        ("cell_graph_transformer", {"model.encoder.gradient_checkpointing"}),
        ("hgt_embedder", {"model.encoder.recompute"}),
        ("dango", set()),
    ],
)
def test_a_model_declares_keys_of_its_config_and_its_file_has_their_plain_values(name, keys):
    cfg = composed(f"model={name}")
    assert set(memory_options_of(cfg)) == keys | {"trainer.precision"}
    assert {key: OmegaConf.select(cfg, key) for key in memory_options_of(cfg)} == memory_options_of(cfg)


class Foreign(AdditiveScreen):
    """Whose knobs are named as those that save memory in other models, and mean something else."""

    def __init__(self, spec: Spec, attention: str, gradient_checkpointing: str, recompute: bool, **base: Any) -> None:
        super().__init__(spec, **base)
        if (attention, gradient_checkpointing, recompute) != ("mine", "rarely", True):
            raise InputError(f"model.attention={attention}: choose mine")


def test_a_model_that_declares_no_option_keeps_its_keys_and_its_run(tmp_path):
    """``model.attention=full`` was set on any model with such a key: one that refused it lost its whole run."""
    cfg = composed(*SCREEN, "trainer.max_epochs=1", "evaluation.n_boot=20", f"paths.runs={tmp_path}", "baselines=none")
    OmegaConf.set_struct(cfg, False)
    knobs = {"attention": "mine", "gradient_checkpointing": "rarely", "recompute": True}
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True}
    cfg.model = {"_target_": f"{__name__}.Foreign", **knobs, "optimizer": optimizer}
    assert options_on(cfg) == {}
    cfg.trainer.precision = "bf16-mixed"
    assert options_on(cfg) == {"trainer.precision": "bf16-mixed"}
    assert not any(word in " ".join(advice(cfg)) for word in knobs)
    trained = train(cfg)
    assert (trained.folder.path / "metrics.json").is_file()
    page = (trained.folder.path / "report.html").read_text()
    assert "trainer.precision=bf16-mixed" in page
    assert "model.attention=full" not in page


def test_nothing_is_measured_where_nothing_saves_memory_or_it_is_switched_off():
    assert sections() == []
    assert sections("trainer.precision=bf16-mixed", "evaluation.memory_step_s=null") == []


def test_each_option_is_measured_alone_and_with_the_others_against_the_plain_step():
    before = torch.get_rng_state()
    (section,) = sections("trainer.precision=bf16-mixed", "model.encoder.gradient_checkpointing=true")
    assert torch.equal(torch.get_rng_state(), before), "the run's random state is not the measurement's"
    assert section.table is not None
    alone = ["model.encoder.gradient_checkpointing=true", "trainer.precision=bf16-mixed"]
    assert section.table["setting"].tolist() == ["plain", *alone, "this run"]
    assert share(section, "plain") == 1
    assert share(section, "this run") < min(share(section, setting) for setting in alone)
    assert max(share(section, setting) for setting in alone) < 0.9
    assert "model.encoder.gradient_checkpointing=false, trainer.precision=32-true" in section.text


def test_one_option_is_one_row_and_a_slow_run_is_measured_on_fewer_samples():
    (section,) = sections("trainer.precision=bf16-mixed", samples_per_s=4.0)
    assert section.table is not None
    assert section.table["setting"].tolist() == ["plain", "trainer.precision=bf16-mixed"]
    assert "step of 2 sample(s)" in section.text


def test_a_plain_step_that_does_not_fit_ends_no_run(monkeypatch):
    original = memory_options.measure

    def measure(subject, *given):
        if subject.dtype is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(subject, *given)

    monkeypatch.setattr(memory_options, "measure", measure)
    (section,) = sections("trainer.precision=bf16-mixed")
    assert section.table is not None
    assert section.table["MB of tensors"].tolist()[0] == "does not fit"
    assert float(section.table["MB of tensors"].tolist()[1]) > 0
    assert section.table["MB of tensors, of plain"].tolist()[1] == ""


def test_another_failure_is_not_hidden(monkeypatch):
    def measure(*given):
        raise RuntimeError("sizes of tensors must match")

    monkeypatch.setattr(memory_options, "measure", measure)
    with pytest.raises(RuntimeError, match="must match"):
        sections("trainer.precision=bf16-mixed")
