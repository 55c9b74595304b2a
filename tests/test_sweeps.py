"""Every sweep.yaml, expanded by wandb's own agent, names keys of our config; two of the commands are run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchcell.training.entry import conf_dir

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = sorted((ROOT / "experiments").glob("*/sweep.yaml"))
SMALL = {
    "trainer.max_epochs": 1, "data.subset": 300, "evaluation.n_boot": 10, "baselines": "none", "trainer.warmup_steps": 0,
}  # fmt: skip


def corner(parameters: dict[str, Any], high: bool) -> dict[str, Any]:
    """The first or the last value of each parameter."""
    return {
        name: one["values"][-1 if high else 0] if "values" in one else one["max" if high else "min"]
        for name, one in parameters.items()
    }


def drawn(parameters: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """One value of each parameter, by its distribution."""
    found: dict[str, Any] = {}
    for name, one in parameters.items():
        if "values" in one:
            found[name] = one["values"][rng.integers(len(one["values"]))]
        elif one["distribution"] == "log_uniform_values":
            found[name] = float(np.exp(rng.uniform(np.log(one["min"]), np.log(one["max"]))))
        else:
            found[name] = float(rng.uniform(one["min"], one["max"]))
    return found


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Give the agent a sweep and a run, as the service would, and return the process that it starts."""
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them in this process
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc12345")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from wandb.wandb_agent import Agent

    def run(sweep: dict[str, Any], values: dict[str, Any], run_id: str) -> Any:
        agent = Agent(api=None, queue=None, sweep_id="abc12345")
        agent._sweep_command = list(sweep["command"])
        arguments = {name: {"value": value} for name, value in values.items()}
        agent._command_run({"type": "run", "run_id": run_id, "program": sweep["program"], "args": arguments})
        return agent._run_processes[run_id]

    return run


@pytest.fixture
def expand(start, monkeypatch):
    """The command that the agent would run, without running it."""

    class Recorded:
        def __init__(self, command: list[str], **rest: Any) -> None:
            self.command = command

    monkeypatch.setattr("wandb.wandb_agent.AgentProcess", Recorded)
    return lambda sweep, values: start(sweep, values, "r0").command


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.parent.name)
def test_the_agents_command_composes_with_the_sampled_values_on_a_hard_split(path, expand):
    sweep = yaml.safe_load(path.read_text())
    assert sweep["metric"] == {"name": "val/score", "goal": "maximize"}  # what early stopping and best.ckpt go by
    for values in (corner(sweep["parameters"], False), drawn(sweep["parameters"], np.random.default_rng(0))):
        env, *command = expand(sweep, values)
        assert env == "/usr/bin/env"
        assert command[:3] == ["python", "-m", "torchcell.train"]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("config", command[3:])
        assert {name: OmegaConf.select(config, name) for name in values} == values
        assert config.split.method not in ("random", "condition", "file")
        assert config.logger.wandb is not None
        assert config.ckpt_path == "auto"


@pytest.mark.long
def test_two_commands_of_the_agent_run(start, tmp_path, monkeypatch):
    """On the simulated siblings of the data; what the agent tells a run of itself reaches wandb."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    siblings = {"001-yeast-interactions": "simulated_dango", "005-chemoe": "simulated_chemoe"}
    begun = []
    for number, (study, experiment) in enumerate(siblings.items()):
        sweep = yaml.safe_load((ROOT / "experiments" / study / "sweep.yaml").read_text())
        place = next(i for i, one in enumerate(sweep["command"]) if one.startswith("+experiment="))
        sweep["command"][place] = f"+experiment={experiment}"
        values = drawn(sweep["parameters"], np.random.default_rng(number)) | SMALL
        begun.append((experiment, values, start(sweep, values, f"run{number}")))
    for number, (experiment, values, process) in enumerate(begun):
        assert process.wait() == 0
        (folder,) = (report.parent for report in tmp_path.glob(f"runs/{experiment}/*/report.html"))
        config = OmegaConf.load(folder / "config.yaml")
        rate = "model.optimizer.lr"
        assert OmegaConf.select(config, rate) == values[rate]
        assert list(folder.glob(f"wandb/offline-run-*-run{number}")), "the agent's id is the run's"
