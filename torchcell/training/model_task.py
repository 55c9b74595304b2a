"""Refuses a model of one task on data of another before any data are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """The choices of ``model``, also the user's, whose class takes ``spec``."""
    from hydra.utils import get_object

    folders = model_folders(conf_dir())
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    targets = {
        name: next((file["_target_"] for file in lineage(folders, name).values() if "_target_" in file), None)
        for name in names
    }
    reads = {name: getattr(get_object(target), "reads", None) for name, target in targets.items() if target}
    return [name for name, one in reads.items() if one is not None and issubclass(spec, one)]
