"""The baselines that are standard for a task, ``conf/baselines``: which a run leaves out, and which may be a prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torchcell.io.errors import InputError
from torchcell.training.entry import conf_dir


def standard_baselines(package: str) -> dict[str, DictConfig]:
    """Configs of a task's standard baselines by name, whatever the run's config names.

    Args:
        package: The package of the data's task, see ``Task.package``.
    """
    found: dict[str, DictConfig] = {}
    for path in sorted((conf_dir() / "baselines").glob("*.yaml")):
        listed = OmegaConf.load(path)
        assert isinstance(listed, DictConfig)
        if listed and all(str(config["_target_"]).startswith(f"{package}.") for config in listed.values()):
            found |= {str(name): config for name, config in listed.items()}
    return found


def departures(configs: Mapping[str, Any], package: str) -> tuple[str, ...]:
    """Sentences on standard baselines that were not run, or run with other settings.

    The verdict compares with the best baseline that was run, so it must say where a standard one is missing or changed.

    Args:
        configs: The run's baselines by name.
        package: See ``standard_baselines``.
    """
    run = {name: _plain(config) for name, config in configs.items() if config is not None}
    if not run:  # a run without baselines has no verdict
        return ()
    standard = {name: _plain(config) for name, config in standard_baselines(package).items()}
    missing = [name for name in standard if name not in run]
    changed = [name for name, config in standard.items() if name in run and run[name] != config]
    lists = {"standard baselines not run": missing, "baselines with other settings than the standard ones": changed}
    return tuple(f"{text}: {', '.join(names)}" for text, names in lists.items() if names)


def prior_config(name: str, configs: Mapping[str, Any], package: str) -> DictConfig:
    """Config of the baseline that is a model's prior: the run's own, else the standard one.

    A run may score none, ``baselines=none``, and have a prior all the same.

    Args:
        name: ``model.prior``.
        configs: The run's baselines by name.
        package: See ``standard_baselines``.

    Raises:
        InputError: No baseline has this name.
    """
    own = {str(key): config for key, config in configs.items() if config is not None}
    known = standard_baselines(package) | own
    if name not in known:
        raise InputError(
            f"model.prior={name}: no baseline of these data has this name; there are {', '.join(known)}; name one of "
            "them, or set model.prior=null for the network alone"
        )
    found: DictConfig = known[name]
    return found


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.create(config), resolve=False)
