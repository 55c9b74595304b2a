"""Every choice of the config tree composes, and no key stands in it that nothing reads."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from torchcell.cells.task import TASK as CELLS
from torchcell.core.spec import Spec
from torchcell.drug_response.task import TASK as DRUG_RESPONSE
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.task import TASK as KNOWLEDGE_GRAPH
from torchcell.profile import profile
from torchcell.screen.task import TASK as SCREEN
from torchcell.training.build import NOT_DATA, NOT_TRAINER
from torchcell.training.choices import SPLITS, beside, lineage, model_folders
from torchcell.training.entry import conf_dir
from torchcell.training.model_task import models_of, refuse_other_task
from torchcell.training.standard_baselines import departures

PAGE: dict[str, dict[str, Any]] = OmegaConf.to_container(OmegaConf.load(conf_dir() / "experiment.yaml"))
EXPERIMENTS = sorted(PAGE)


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


CHOICES = [
    *(
        f"{group}={name}"
        for group in ("benchmark", "data", "graph", "model", "baselines", "trainer", "callbacks", "logger", "+debug")
        for name in names(group.lstrip("+"))
    ),
    *(f"split={name}" for name in SPLITS),
]


@functools.cache
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


NOT_MODEL = ("prior", "prior_use", "residual")
"""Of the model's config, with what is no argument of its class, see ``checkpoint.built``."""


def arguments(target: Any) -> set[str] | None:
    """Names that a target takes, those that a class of ours passes on to its bases too; none where any is taken."""
    found: set[str] = set()
    for one in [target, *getattr(target, "__mro__", ())[1:]]:
        parameters = inspect.signature(one).parameters
        found |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return found
        if not isinstance(target, type) or not target.__module__.startswith("torchcell."):
            return None
    return found


@pytest.mark.parametrize(
    "overrides", [[f"+experiment={name}"] for name in EXPERIMENTS] + [[one] for one in CHOICES], ids=str
)
def test_each_key_is_an_argument_of_what_it_configures(overrides):
    plain = OmegaConf.to_container(composed(*overrides), resolve=False)
    for path, node in targets(plain):
        others = {".trainer": NOT_TRAINER, ".data": NOT_DATA, ".model": NOT_MODEL}.get(path, ())
        keys = set(node) - {"_target_", "_partial_", "_convert_", *others}
        read = arguments(get_object(node["_target_"]))
        assert read is None or keys <= read, f"{path}: nothing reads {sorted(keys - (read or set()))}"


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


@pytest.mark.parametrize("name", names("trainer"))
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
    cfg = composed(f"+experiment={name}")
    assert departures(cfg.baselines, get_object(cfg.data._target_).TASK.package) == ()


# Benchmarks and models ---------------------------------------------------------------------------------


def task_of(node: Any) -> type[Spec]:
    return get_object(node._target_).TASK.spec


PAIRS = [
    (name, model) for name in names("benchmark") for model in models_of(task_of(composed(f"benchmark={name}").data))
]
"""Each benchmark with each model of its task; the stack where there is one."""


TUNED = {
    (model, benchmark)
    for benchmark, model in PAIRS
    if (conf_dir() / "model" / f"{beside(conf_dir(), model, benchmark)}.yaml").is_file()
}


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, part in node.items() for key, value in flat(part, f"{prefix}.{name}").items()}


def plain(cfg: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(found, dict)
    return found


def test_every_model_and_every_data_say_their_task():
    models = {model for name in names("benchmark") for model in models_of(task_of(composed(f"benchmark={name}").data))}
    assert models == set(names("model"))
    assert all(task_of(composed(f"data={name}").data) for name in names("data"))


@pytest.mark.parametrize(("benchmark", "model"), PAIRS, ids=[" ".join(pair) for pair in PAIRS])
def test_every_model_of_a_benchmarks_task_composes_with_its_own_knobs_alone(benchmark, model):
    """``+experiment=X model=Y`` died for 30 of 44 pairs of one task, on the knobs of X's own model:
    ``Dango.__init__() got an unexpected keyword argument 'graph_weight'``. The others took them in silence.
    """
    cfg = composed(f"benchmark={benchmark}", f"model={model}")
    for path, node in targets(plain(cfg)["model"]):
        signature = inspect.signature(get_object(node["_target_"]))
        others = {"_target_", "_partial_", "_convert_", *({"": NOT_MODEL}.get(path, ()))}
        signature.bind_partial(**{key: None for key in node if key not in others})
        assert None not in signature.parameters, path
    own = {key for key in flat(plain(composed(f"model={model}"))["model"]) if not key.startswith(".scheduler")}
    assert {key for key in flat(plain(cfg)["model"]) if not key.startswith(".scheduler")} == own
    if (model, benchmark) not in TUNED:
        assert cfg.model == composed(f"model={model}").model
        assert cfg.trainer == composed().trainer
    assert cfg.name == f"{benchmark}_{model}"
    refuse_other_task(cfg)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_a_benchmark_and_a_model(name):
    entry = [f"{key}={str(value).replace(' ', '')}" for key, value in PAGE[name].items()]
    assert {"benchmark", "model"} <= set(PAGE[name])
    assert composed(f"+experiment={name}") == composed(*entry, f"name={name}")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_another_model_under_an_experiment_runs_with_its_own_knobs(name):
    own, benchmark = PAGE[name]["model"], PAGE[name]["benchmark"]
    model = next(other for one, other in PAIRS if one == benchmark and other != own)
    cfg = composed(f"+experiment={name}", f"model={model}")
    alone = composed(f"benchmark={benchmark}", f"model={model}")
    assert (cfg.name, cfg.trainer) == (name, alone.trainer)
    assert cfg.model == alone.model


@pytest.mark.parametrize("benchmark", names("benchmark"))
def test_a_benchmark_alone_takes_a_model_of_its_task(benchmark):
    cfg = composed(f"benchmark={benchmark}")
    refuse_other_task(cfg)
    assert departures(cfg.baselines, get_object(cfg.data._target_).TASK.package) == ()


def test_every_file_of_a_model_is_of_a_benchmark_of_its_task_or_a_space_or_a_profile():
    taken = {f"{beside(conf_dir(), model, what)}.yaml" for what, model in PAIRS}
    taken |= {f"{beside(conf_dir(), model, what)}.yaml" for model in names("model") for what in ("search", "profile")}
    taken |= {f"base/{path.name}" for path in (conf_dir() / "model" / "base").glob("*.yaml")}
    tree = conf_dir() / "model"
    assert {str(path.relative_to(tree)) for path in tree.glob("*/**/*.yaml")} <= taken


@pytest.mark.parametrize(("model", "benchmark"), sorted(TUNED), ids=[" ".join(pair) for pair in sorted(TUNED)])
def test_a_variant_has_what_was_tuned_for_its_base_but_for_its_own_lines(model, benchmark):
    """``+experiment=costanzo2010_gnn_lazy model=perturbed_cell_gnn_large`` was the small one."""
    folders = model_folders(conf_dir())
    if not (folders[0] / model / f"{benchmark}.yaml").is_file():
        own = {key: value for key, value in lineage(folders, model)[model].items() if key != "defaults"}
        found = flat(plain(composed(f"benchmark={benchmark}", f"model={model}"))["model"])
        assert flat(own).items() <= found.items()


def test_the_command_line_goes_before_what_was_tuned_and_a_benchmark_before_the_datas_own_choices():
    cfg = composed(
        "benchmark=costanzo2010", "model=dango", "trainer.max_epochs=7", "split=query_disjoint", "graph=none"
    )
    assert (cfg.trainer.max_epochs, cfg.split.method, dict(cfg.graph)) == (7, "query_disjoint", {})
    own = composed("benchmark=papalexi2021", "data=cells")
    assert (own.split.method, own.name) == ("unseen_perturbation", "papalexi2021_gene_set_transformer")
    assert own.graph == composed("benchmark=papalexi2021").graph


def test_a_model_of_another_task_is_refused_by_the_names_of_those_that_fit():
    with pytest.raises(
        InputError, match=r"predicts perturbation screens, .* holds single cells; models for it: gene_set_transformer, "
    ):
        refuse_other_task(composed("benchmark=papalexi2021", "model=dango"))


def test_it_is_refused_before_data_are_read_and_leaves_no_folder(tmp_path):
    """The line named no model that fits, and came after half a minute of reading."""
    command = [sys.executable, "-m", "torchcell.train", "benchmark=papalexi2021", "model=dango"]
    nowhere = {**os.environ, "TORCHCELL_MIRROR": str(tmp_path / "none"), "TORCHCELL_DATA": str(tmp_path / "none")}
    answer = subprocess.run(
        command, cwd=tmp_path, env=nowhere, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == (
        "error: model=dango predicts perturbation screens, benchmark=papalexi2021 holds single cells; models for it: "
        "gene_set_transformer, gene_set_transformer_sparse"
    )
    assert not list(tmp_path.iterdir())
    with (
        initialize_config_dir(str(conf_dir()), version_base="1.3"),
        pytest.raises(InputError, match="predicts perturbation screens"),
    ):
        profile(compose("profile", ["benchmark=papalexi2021", "model=dango", f"profile.out={tmp_path}"]))


def test_every_split_method_is_a_choice():
    methods = {name for task in (SCREEN, DRUG_RESPONSE, CELLS, KNOWLEDGE_GRAPH) for name in task.splits.methods}
    assert set(SPLITS) == {*methods, "random", "file", "held_out_genes"}  # the last is one of two, as the screen is
    for name in SPLITS:
        assert composed(f"split={name}", "split.fold=1").split.fold == 1


def test_no_two_files_say_the_same():
    """138 files once, of which 19 held nothing, or what another held."""
    content: dict[str, list[str]] = {}
    tuned = set((conf_dir() / "model").glob("*/**/*.yaml"))  # which two benchmarks may have in common
    for path in sorted(set(conf_dir().rglob("*.yaml")) - tuned):
        text = "\n".join(line.partition("#")[0].rstrip() for line in path.read_text().splitlines())
        content.setdefault(text.strip(), []).append(str(path.relative_to(conf_dir())))
    assert [paths for paths in content.values() if len(paths) > 1] == [["baselines/none.yaml", "graph/none.yaml"]]
