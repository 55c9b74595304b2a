"""Refuses a model of one task on data of another before any data are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchcell.io.errors import InputError
from torchcell.training.choices import lineage, model_folders
from torchcell.training.entry import conf_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchcell.core.spec import Spec


def refuse_other_task(cfg: DictConfig) -> None:
    """Compare the spec of the model with that of the data. A model of any spec is allowed, and so are data whose task
    names no spec.

    Raises:
        InputError: They differ; it names the models of the data's task.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import get_object

    from torchcell.core.spec import Spec

    model, data = get_object(cfg.model._target_), get_object(cfg.data._target_)
    holds: type[Spec] | None = getattr(getattr(data, "TASK", None), "spec", None)
    if holds in (None, Spec) or not hasattr(model, "reads") or issubclass(holds, model.reads):
        return
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    group = "benchmark" if chosen.get("benchmark") else "data"
    raise InputError(
        f"model={chosen.get('model', model.__name__)} predicts {model.reads.WORDS}, "
        f"{group}={chosen.get(group, data.__name__)} holds {holds.WORDS}; models for it: {', '.join(models_of(holds))}"
    )


def models_of(spec: type[Spec]) -> list[str]:
    """The choices of ``model``, also the user's, whose class takes ``spec``; one that is nothing but a prior where the
    task has it.
    """
    from hydra.utils import get_object

    from torchcell.training.standard_baselines import standard_baselines

    folders = model_folders(conf_dir())
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    files = {name: list(lineage(folders, name).values()) for name in names}
    priors = {None, *standard_baselines(spec.__module__.rpartition(".")[0])}

    def first(name: str, key: str) -> Any:
        return next((file[key] for file in files[name] if key in file), None)

    def takes(name: str) -> bool:
        reads = getattr(get_object(first(name, "_target_")), "reads", None) if first(name, "_target_") else None
        if reads is None or not issubclass(spec, reads):
            return False
        return reads is spec or first(name, "prior") in priors

    return [name for name in names if takes(name)]
