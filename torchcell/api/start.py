"""``fit``: train from a notebook as ``python -m torchcell.train`` does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torchcell.io.errors import InputError, readable

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchcell.api.records import Records
    from torchcell.api.run import Run

NAMED = re.compile(r"[A-Za-z0-9_.-]+")
"""An experiment; what holds a ``=`` is an override."""


def fit(what: str | Records | None = None, *overrides: str) -> Run:
    """Train a model, score it beside its baselines, write the run's folder, and return the run.

    A config and seed that has been trained already is not trained again: its run is returned, and one that was cut off
    goes on, as with ``ckpt_path=auto``. ``overwrite=true`` trains anew.

    Args:
        what: Name of an experiment (``conf/experiment.yaml``), records of your own, or a first override; none: the
            simulated cell and DANGO.
        *overrides: As on the command line, e.g. ``model=dango``, ``trainer.max_epochs=5``, ``seed=1``.

    Raises:
        InputError: An unknown name or a value that can't be, in one line that names the nearest; records that can't be
            learned from; a folder in which another process is at work.

    Example:
        >>> import torchcell as tc
        >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
        >>> run.metrics["system"].unique().tolist()
        ['Dango', 'replicate_ceiling']
    """
    from torchcell.api.run import Run
    from torchcell.train import train
    from torchcell.training.run_folder import finished_score, refuse_running, run_path

    cfg = compose(what, *overrides)
    folder = run_path(cfg)
    if finished_score(cfg) is None:
        refuse_running(cfg)
        train(cfg)
    else:
        print(readable(f"{folder} is finished and was loaded; overwrite=true trains anew"))
    return Run(folder / "checkpoints" / "best.ckpt", _own_packages(cfg))


def _own_packages(cfg: DictConfig) -> tuple[str, ...]:
    """Packages outside torchcell's whose objects the config names: they have just been run here."""
    from omegaconf import OmegaConf

    found = set(re.findall(r"^ *_target_: '?(\w+)", OmegaConf.to_yaml(cfg), re.MULTILINE))
    return tuple(sorted(found - {"torchcell", "torch", "lightning"}))


def compose(what: str | Records | None = None, *overrides: str) -> DictConfig:
    """The config that ``fit`` would run, with the same arguments."""
    from omegaconf import open_dict

    from torchcell.api.records import Records
    from torchcell.training.entry import composed, refuse_missing

    given = [*overrides]
    if isinstance(what, Records):
        given = [f"data={what.data}", *given]
    elif what is not None:
        given = [f"+experiment={what}" if NAMED.fullmatch(what) else what, *given]
    if flags := [one for one in given if one.startswith("-")]:
        raise InputError(
            f"{' '.join(flags)} is for the command line: fit trains one run; call it in a loop, or use "
            "python -m torchcell.train -m"
        )
    keys = {one.lstrip("+").partition("=")[0] for one in given}
    if not keys & {"ckpt_path", "overwrite"}:
        given.append("ckpt_path=auto")
    cfg = composed("config", given)
    if isinstance(what, Records):
        with open_dict(cfg):
            what.put_into(cfg)
    refuse_missing(cfg)
    return cfg
