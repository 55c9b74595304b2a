"""``hydra/sweeper=optuna``: Hydra takes sweepers from this package only, and imports it at each start."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 10, "multivariate": False},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 1},
    "grid": {"_target_": "optuna.samplers.GridSampler"},
}
"""Choices of ``hydra/sweeper/sampler``; the config adds the seed, and a grid's values are those of the search space."""

PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"_target_": "optuna.pruners.NopPruner"},
    "median": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 5, "n_warmup_steps": 5},
    "percentile": {
        "_target_": "optuna.pruners.PercentilePruner",
        "percentile": 25.0,
        "n_startup_trials": 5,
        "n_warmup_steps": 5,
    },
    "successive_halving": {"_target_": "optuna.pruners.SuccessiveHalvingPruner"},
    "hyperband": {"_target_": "optuna.pruners.HyperbandPruner"},
}
"""Choices of ``hydra/sweeper/pruner``; a step is an epoch."""

for group, choices in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
    for name, node in choices.items():
        ConfigStore.instance().store(group=f"hydra/sweeper/{group}", name=name, node=node, provider="torchcell")


class OptunaSweeper(Sweeper):
    """Hands the config to ``torchcell.training.search.Search`` once a search is asked for."""

    def __init__(self, **keys: Any) -> None:
        self.search: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the launcher that runs the trials."""
        from functools import partial

        from hydra.core.plugins import Plugins

        from torchcell.training.search import Search, run_trial

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=partial(run_trial, task_function), config=config
        )
        self.search = Search(config, launcher)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are left."""
        self.search.run()
