"""Every choice of the config tree composes, and no key stands in it that nothing reads."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from torchcell.training.baselines import departures
from torchcell.training.build import NOT_DATA, NOT_TRAINER
from torchcell.training.entry import conf_dir

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
CHOICES = [
    f"{group}={path.stem}"
    for group in ("data", "graph", "split", "model", "baselines", "trainer", "callbacks", "logger", "+debug")
    for path in sorted((conf_dir() / group.lstrip("+")).glob("*.yaml"))
]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides))


def targets(node: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(node, list):
        return [found for i, value in enumerate(node) for found in targets(value, f"{path}[{i}]")]
    if not isinstance(node, dict):
        return []
    own = [(path, node)] if node.get("_target_") is not None else []
    return own + [found for key, value in node.items() for found in targets(value, f"{path}.{key}")]


@pytest.mark.parametrize(
    "overrides", [[f"+experiment={name}"] for name in EXPERIMENTS] + [[one] for one in CHOICES], ids=str
)
def test_each_key_is_an_argument_of_what_it_configures(overrides):
    plain = OmegaConf.to_container(composed(*overrides), resolve=False)
    for path, node in targets(plain):
        others = {".trainer": NOT_TRAINER, ".data": NOT_DATA}.get(path, ())
        keys = set(node) - {"_target_", "_partial_", "_convert_", *others}
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            continue
        assert keys <= set(parameters), f"{path}: nothing reads {sorted(keys - set(parameters))}"


def test_each_key_outside_the_targets_is_read_somewhere():
    source = "\n".join(
        path.read_text() for path in Path(importlib.import_module("torchcell").__file__).parent.rglob("*.py")
    )
    cfg = composed()
    free = [key for key in cfg if key not in ("hydra", "data", "graph", "split", "model", "baselines", "callbacks")]
    names = [f"cfg.{key}" for key in free] + [f"cfg.evaluation.{key}" for key in cfg.evaluation]
    names += [f"cfg.paths.{key}" for key in cfg.paths] + [f"cfg.trainer.{key}" for key in NOT_TRAINER]
    for name in names:
        assert re.search(rf"\b{re.escape(name)}\b", source), f"nothing reads {name.removeprefix('cfg.')}"


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "trainer").glob("*.yaml")))
def test_every_trainer_has_what_the_contract_names(name):
    trainer = composed(f"trainer={name}").trainer
    for key in (
        "max_epochs",
        "gradient_clip_val",
        "early_stopping",
        "warmup_steps",
        "precision",
        "accumulate_grad_batches",
    ):
        assert key in trainer, key


def test_debugging_overrules_the_experiment_and_the_command_line_overrules_both():
    assert composed("+experiment=simulated_dango", "+debug=overfit").trainer.max_epochs == 200
    assert composed("+experiment=simulated_dango", "+debug=overfit", "trainer.max_epochs=7").trainer.max_epochs == 7


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_drops_a_guard(name):
    guards = {"early_stopping", "finite_loss", "loss_share", "throughput", "progress"}
    assert guards <= set(composed(f"+experiment={name}").callbacks)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_debug_fast_gives_the_baselines_less_to_choose_from_and_no_key_of_their_own(name):
    whole, fast = (
        OmegaConf.to_container(composed(f"+experiment={name}", *more).baselines) for more in ([], ["+debug=fast"])
    )
    assert {baseline: set(knobs) for baseline, knobs in fast.items()} == {
        baseline: set(knobs) for baseline, knobs in whole.items()
    }
    for baseline, knobs in fast.items():
        for key, value in knobs.items():
            assert not isinstance(value, list) or len(value) <= len(whole[baseline][key]), f"{baseline}.{key}"


def test_debug_fast_brings_no_baseline_back_that_was_left_out():
    left_out = composed("+experiment=simulated_dango", "+debug=fast", "baselines.gradient_boosting=null").baselines
    assert left_out.gradient_boosting is None
    assert left_out.low_rank_als.n_iter < composed().baselines.low_rank_als.n_iter
    assert composed("+debug=fast", "baselines=none").baselines == {}
    assert composed("+debug=overfit").baselines == composed().baselines
    assert "baselines" not in composed("~baselines", "+debug=fast")


OWN = {
    "screen": (None, "held_out_genes", "pairwise_factors", "screen"),
    "cells": (None, "unseen_perturbation", "gene_set_transformer", "cells"),
    "response": (None, "cold_drug", "chemoe_small", "response"),
    "knowledge_graph": (None, "edges", "hgt_embedder_quick", "links"),
}
"""data=... -> graph, split, model and baselines that it chooses."""


@pytest.mark.parametrize("data", OWN)
def test_a_users_own_data_choose_what_fits_their_task(data):
    graph, split, model, baselines = OWN[data]
    cfg = composed(f"data={data}")
    expected = composed(f"data={data}", f"split={split}", f"model={model}", f"baselines={baselines}", "graph=none")
    assert cfg == expected
    assert (cfg.name, cfg.split.method, cfg.graph or None) == (data, split, graph)


@pytest.mark.parametrize("data", OWN)
def test_what_the_command_line_or_an_experiment_chooses_goes_before_it(data):
    cfg = composed(f"data={data}", "split=random", "model=dango", "graph=edge_list", "baselines=none", "name=mine")
    assert (cfg.split.method, cfg.name, dict(cfg.baselines)) == ("random", "mine", {})
    assert cfg.model._target_.endswith("Dango")
    assert cfg.graph._target_.endswith("from_networks")
    cfg = composed("+experiment=papalexi2021_set", f"data={data}")
    theirs = composed("+experiment=papalexi2021_set")
    assert (cfg.name, cfg.model, cfg.split, cfg.graph) == (theirs.name, theirs.model, theirs.split, theirs.graph)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_held_against_the_standard_baselines_of_its_task(name):
    assert departures(composed(f"+experiment={name}").baselines) == ()
