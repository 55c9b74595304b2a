"""Checkpoints that describe themselves, and load without running anything they contain."""

from __future__ import annotations

import errno
import inspect
import pickle
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_object, instantiate
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf, open_dict

from torchcell.core.model import Model
from torchcell.core.prior import Prior
from torchcell.core.spec import Spec
from torchcell.io.cache import atomic_write
from torchcell.io.ceiling import refuse_large_values, refuse_torch_bomb
from torchcell.io.configurable import check_config, check_plain
from torchcell.io.errors import InputError, some
from torchcell.io.gene_features import read_gene_features
from torchcell.io.paths import REMEDIES, located, refuse_links
from torchcell.io.plain_config import parse_plain
from torchcell.nn.residual import ResidualOptions
from torchcell.training.build_limits import no_larger_than
from torchcell.training.data_changes import other_indices, other_names, other_values
from torchcell.training.renamed import new_names
from torchcell.training.standard_baselines import prior_config

KEY = "torchcell"
FORMAT = 3
"""Of the description: in 3 models group their keys, in 2 they were flat, in 1 all tasks had one dictionary."""

DATA_CHANGED = ("error", "allow")
"""What to do with data that changed since a checkpoint was trained: the values of ``data_changed``."""

TORCH_WRITER = ("inline_container", "PytorchStreamWriter")
"""What torch's own errors speak of when a file can't be written: "unexpected pos 768 vs 662" is a full disk."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it with ``weights_only=True``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside ``path`` and rename, so that a full disk leaves the old file whole.

        Raises:
            InputError: The disk or the quota is full, or the folder is gone; what to do then.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter for a full disk
            if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORCH_WRITER):
                raise
            why = str(error).split("\n")[0]
            kept = f"the one before it, {path}, is whole" if path.is_file() else "there is none before it"
            known = REMEDIES.get(error.errno or 0) if isinstance(error, OSError) else REMEDIES[errno.ENOSPC]
            remedy = (known or "Mend the folder").capitalize()
            free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
            raise InputError(
                f"the checkpoint {path} could not be written ({why}); {free / 2**20:,.0f} MB are free in "
                f"{path.parent}; {kept}. {remedy}, then start the same command with ckpt_path=auto: it goes on from "
                "what was saved, or starts anew"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict:
        """Read tensors and plain values only."""
        return read(path, map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove nothing: a run overwrites ``best.ckpt`` and ``last.ckpt`` and leaves no others to remove.

        Lightning takes the path from the checkpoint that a run goes on from. It may be any folder of the user.
        """


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file says of itself.

    Attributes:
        path: The file.
        spec: Inputs and outputs of the model.
        config: The run's composed config.
        state: The model's weights.
        epoch: Of the saved weights.
        done: Epochs that were trained to their end.
        version: Of the torchcell that wrote it.
        prior_plain: Its prior, see ``prior``.
        arguments: What its model was built with, see ``arguments_of``; none in a file before 2026-11-30.
    """

    path: Path
    spec: Spec
    config: DictConfig
    state: dict[str, Any]
    epoch: int
    version: str = "?"
    done: int = 0
    prior_plain: dict[str, Any] | None = None
    arguments: dict[str, str] | None = None

    def checked(self, key: str, trust: Sequence[str] = ()) -> Any:
        """What the config has under ``key``, once it is known to call nothing but what is on the list.

        Whatever is made of a checkpoint's config is made of what this gives, whichever verb makes it.

        Args:
            key: ``data``, ``graph``, ``model`` or ``baselines``.
            trust: Packages besides torchcell's whose objects the config may name, e.g. your own.

        Raises:
            InputError: See ``check_config``.
        """
        found = self.config.get(key)
        if key in ("data", "model") and not isinstance(OmegaConf.select(self.config, f"{key}._target_"), str):
            raise InputError(f"{self.path}: its config names no {key}; torchcell did not write it so")
        check_config(found, trust, key)
        return found

    def prior(self, trust: Sequence[str] = ()) -> Prior | None:
        """The prior that the network's residual is of, as it was fitted; none where the model has none.

        Raises:
            InputError: This version can't read it, or its class is outside the trusted packages.
        """
        if self.prior_plain is None:
            return None
        representation = self.datamodule_class(trust)
        package = representation.TASK.package
        config = prior_config(self.config.model.prior, self.checked("baselines", trust) or {}, package)
        graph = representation.graph_of(self.spec)
        try:
            return Prior.from_plain(self.prior_plain, lambda: instantiate(config), graph)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InputError(
                f"{self.path} was written by torchcell {self.version}, and this version can't read its prior "
                f"({type(error).__name__}: {error}); install that version, or train again"
            ) from error

    def model(self, trust: Sequence[str] = (), spec: Spec | None = None) -> Model:
        """The model with its weights, in evaluation mode.

        Args:
            trust: Packages besides torchcell's whose classes the config may name, e.g. your own.
            spec: Inputs and outputs other than its own, see ``spec_with``; the weights keep their shapes.
        """
        config = self.checked("model", trust)
        name = str(config._target_)
        found = get_object(name)
        if not (isinstance(found, type) and issubclass(found, Model)):
            raise InputError(f"{self.path}: its model {name!r} is no model of torchcell; nothing of it was run")
        self._check_arguments(config)
        if gone := unknown_arguments(config, "model."):
            now = [f"{key} ({' or '.join(new)} now)" if (new := new_names(key, ())) else key for key in gone]
            raise InputError(
                f"{self.path} was written by torchcell {self.version}, whose {name.rpartition('.')[2]} took "
                f"{some(now)}, and this version's does not; install that version to go on with it, or train again with "
                "this one: the same experiment and overrides but for these"
            )
        try:
            with no_larger_than(self.path, self.state):
                model = built(config, spec or self.spec)
        except (TypeError, InstantiationException) as error:
            raise InputError(
                f"{self.path} was written by torchcell {self.version}, and this version can't build its model "
                f"{name.rpartition('.')[2]}: {str(error).splitlines()[0]}; install that version, or train again"
            ) from error
        load_weights(model, self.state, self.path)
        return model.eval()

    def _check_arguments(self, config: Any) -> None:
        """Refuse a config that leaves an argument to a default that is not the one of its training.

        An argument that is newer than the checkpoint has the default that keeps what was before.
        """
        if self.arguments is None:
            return
        then, now = self.arguments, arguments_of(config)
        left = {name: (then[name], value) for name, value in now.items() if value != GIVEN and name in then}
        gone = [name for name, (was, _) in left.items() if was == GIVEN]
        other = [
            f"{name} ({was} then, {value} now)" for name, (was, value) in left.items() if was not in (GIVEN, value)
        ]
        if gone or other:
            raise InputError(
                f"{self.path} was written by torchcell {self.version}, and its config does not say all that its model "
                f"was built with: taken out {some(gone) or 'none'}, defaults that changed {some(other) or 'none'}; "
                "install that version, or train again"
            )

    def spec_with(self, added_genes: str | Path, trust: Sequence[str] = ()) -> Spec:
        """The spec with the genes of a user's file added, see ``Spec.with_added``.

        Args:
            added_genes: Table of ``gene`` and the feature columns that the model was trained with.
            trust: As for ``model``.

        Raises:
            InputError: The model's class takes no added genes, or the file does not fit.
        """
        name = str(self.checked("model", trust)._target_)
        if not getattr(get_object(name), "adds_genes", False):
            raise InputError(
                f"added_genes={added_genes}: {name.rpartition('.')[2]} knows genes by name only and takes no added "
                "ones; train a model that reads gene features"
            )
        features = read_gene_features(added_genes)
        try:
            return self.spec.with_added(features)
        except InputError as error:
            raise InputError(f"added_genes={added_genes}: {error}") from error

    def check_names(self, spec: Spec, genes: bool = True) -> None:
        """Refuse data whose names mean something else than those it was trained on, as for fine-tuning.

        Args:
            spec: Of the data at hand.
            genes: Whether the genes must be the same, see ``data_changes.other_names``.
        """
        self._refuse_names(other_names(self.spec, spec, genes))

    def check_data(self, spec: Spec, data_changed: str = "error") -> bool:
        """Refuse data other than those it was trained on: of other names, split, values, graph or features.

        Args:
            spec: Of the data at hand.
            data_changed: ``allow`` other values under the same names; else ``error``.

        Returns:
            Whether values differ, which is then allowed.

        Raises:
            InputError: What differs, in one line.
        """
        if data_changed not in DATA_CHANGED:
            raise InputError(f"data_changed={data_changed!r}: must be {' or '.join(DATA_CHANGED)}")
        self._refuse_names([*other_names(self.spec, spec), *other_indices(self.spec, spec)])
        values = other_values(self.spec, spec)
        if values and data_changed != "allow":
            raise InputError(
                f"{self.path} was trained on other data: {', '.join(values)} differ. Bring back the data that it was "
                "trained on, or train anew; with data_changed=allow it goes on with these data, in another folder than "
                "the run's, and the verdict says so"
            )
        return bool(values)

    def check_epochs(self, max_epochs: int | None, elsewhere: bool) -> None:
        """Refuse to go on where no epoch is left to be trained.

        Args:
            max_epochs: Of the run that goes on; none or -1 for no limit.
            elsewhere: Whether that run has another folder than this checkpoint's, which then holds no best epoch yet.

        Raises:
            InputError: How many epochs were done, and what to set.
        """
        if max_epochs is None or max_epochs < 0 or self.done < max_epochs + (0 if elsewhere else 1):
            return
        why = "is fewer" if max_epochs < self.done else "leaves none to do"
        raise InputError(
            f"the checkpoint has done {self.done} epochs, trainer.max_epochs={max_epochs} {why} ({self.path}); set it "
            f"above {self.done} to go on, or score what there is: python -m torchcell.evaluate ckpt={self.path}"
        )

    def _refuse_names(self, differing: list[str]) -> None:
        if differing:
            raise InputError(
                f"{self.path} was trained on other data: {', '.join(differing)} differ; its weights would stand for "
                "other names. Use the same data and graph, or start anew (overwrite=true)"
            )

    def datamodule_class(self, trust: Sequence[str] = ()) -> Any:
        """The datamodule's class, which knows how to read and pack a request."""
        return get_class(self.checked("data", trust)._target_)


def built(config: Any, spec: Spec) -> Model:
    """The model of a config, ready to take its prior where it names one.

    Args:
        config: The config's ``model``; its keys ``prior``, ``prior_use``, ``residual`` are no arguments of the class.
        spec: Inputs and outputs.
    """
    given = config.copy()
    with open_dict(given):
        prior, use, residual = (given.pop(key, None) for key in OF_EVERY)
    model: Model = instantiate(given, _partial_=True)(spec=spec)
    if prior is not None:
        options = None if residual is None else ResidualOptions(**residual)
        model.take_prior(use == "average", options)
    return model


OF_EVERY = ("prior", "prior_use", "residual")
"""Keys of a model's config that ``built`` takes."""
GIVEN = "given"
"""Of an argument whose value stands in the config."""


def arguments_of(config: Any, place: str = "") -> dict[str, str]:
    """Each argument of a model and of what it is made of: ``given`` by its config, or its default as text.

    Args:
        config: A node with ``_target_``; its nodes that have one are looked into too.
        place: Of the node within the model's config.
    """
    found: dict[str, str] = {}
    if config is None or config.get("_target_") is None:
        return found
    for name, one in inspect.signature(get_object(str(config._target_))).parameters.items():
        if one.default is not inspect.Parameter.empty or name in config:
            text = re.sub(r" at 0x[0-9a-f]+", "", repr(one.default))  # where it stands in memory says nothing
            found[f"{place}{name}"] = GIVEN if name in config else text
    for name, node in config.items():
        if isinstance(node, DictConfig):
            found |= arguments_of(node, f"{place}{name}.")
    return found


def unknown_arguments(config: Any, place: str) -> list[str]:
    """Keys that a model's class, or that of what it is made of, does not take; arguments are those of ``arguments_of``.

    Keys of every model, such as ``prior``, are none of them.
    """
    found: list[str] = []
    if config is None or config.get("_target_") is None:
        return found
    taken = inspect.signature(get_object(str(config._target_))).parameters
    if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        found = [f"{place}{key}" for key in config if key not in taken and key not in OF_EVERY and key[0] != "_"]
    for name, node in config.items():
        if isinstance(node, DictConfig):
            found += unknown_arguments(node, f"{place}{name}.")
    return found


def describe(spec: Spec, config: DictConfig, prior: Prior | None = None) -> dict[str, Any]:
    """What a checkpoint carries beside the weights: plain values and tensors only."""
    import torchcell
    from torchcell.training.run_folder import environment_facts

    return {
        "format": FORMAT,
        "versions": environment_facts()["versions"],
        "version": torchcell.__version__,
        "spec": spec.to_plain(),
        "data_fingerprint": spec.data_fingerprint,
        "config": OmegaConf.to_yaml(config, resolve=True),
        "arguments": arguments_of(OmegaConf.select(config, "model")),
        **({} if prior is None else {"prior": prior.to_plain()}),
    }


def load(path: str | Path, trust: Sequence[str] = ()) -> Checkpoint:
    """Read a torchcell checkpoint.

    Args:
        path: Of the file.
        trust: Packages besides torchcell's whose specs it may name, e.g. your own.

    Raises:
        InputError: No such file; truncated; not torchcell's; of a version whose files can't be read; holding anything
            but plain values; in a run folder with links that leave it.
    """
    folder = Path(path).absolute().parent
    if folder.name == "checkpoints":  # of a run, whose other files are read and written beside it
        refuse_links(folder.parent)
    content = read(path)
    if not isinstance(content, dict) or KEY not in content:
        raise InputError(f"{path} is a torch file but no torchcell checkpoint; pass RUN/checkpoints/best.ckpt")
    about = content[KEY]
    version = str(about.get("version", "?")) if isinstance(about, dict) else "?"
    found = about.get("format") if isinstance(about, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise InputError(f"{path} was written by torchcell {version}, which is newer; upgrade torchcell")
    if found != FORMAT:
        raise InputError(_older(path, version, found))
    try:
        plain = parse_plain(about["config"], path)
        check_plain(plain)
        config = OmegaConf.create(plain)
        try:
            spec = Spec.from_plain(about["spec"], tuple(trust))
        except InputError as error:
            raise InputError(f"{path} was written by torchcell {version}, and can't be read: {error}") from error
        if not all(torch.isfinite(value).all() for value in (spec.center, spec.scale)):
            raise InputError(f"{path} can't be used: its targets' center or scale is not finite; train again")
        done = content.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
        epoch = int(content["epoch"])
        return Checkpoint(
            located(path),
            spec,
            config,
            content["state_dict"],
            epoch,
            version,
            int(done.get("processed", epoch + 1)),
            about.get("prior"),
            about.get("arguments"),
        )
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} was written by torchcell {version} in format {found}, which this version can't read ({why}); "
            "install that version, or train again"
        ) from error


def _older(path: str | Path, version: str, found: object) -> str:
    """Who wrote a checkpoint of an older format, and what to do."""
    return (
        f"{path} was written by torchcell {version} in format {found}, and this version reads format {FORMAT} only; "
        "install that version to go on with it, or train again with this one: the same experiment and overrides"
    )


def read(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """``torch.load`` with ``weights_only=True`` and errors that say what is wrong with the file."""
    path = located(path, "no checkpoint", "a run keeps its best in RUN/checkpoints/best.ckpt")
    if path.is_dir():
        raise InputError(f"{path} is a folder and no checkpoint; a run keeps its best in RUN/checkpoints/best.ckpt")
    refuse_torch_bomb(path)
    try:
        content = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = str(error).split("\n")[0]
        raise InputError(
            f"{path} holds more than weights and plain values, or is no torch file, and was not loaded: {why}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read; it is truncated or no torch file: {error}") from error
    refuse_large_values(path, content)
    return content


RENAMED = {"shares.read": "shares.network", "shares.told": "shares.prior"}
"""Weights of checkpoints before 2026-11-29, and what they are called now."""


def load_weights(model: Model, state: dict[str, Any], path: Path, fit_follows: bool = False) -> None:
    """Fill ``model`` with ``state``, all but what a fit that follows makes anew; what does not fit is one error."""
    own = model.state_dict()
    state = {name if name in own else RENAMED.get(name, name): value for name, value in state.items()}
    if fit_follows:
        state = {**state, **{name: own[name] for name in own if name.startswith(model.refitted)}}
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or shapes:
        raise InputError(
            f"the weights of {path} do not fit the model: missing {some(missing)}, unknown {some(extra)}, "
            f"of another shape {some(shapes)}; use the config that it was trained with"
        )
    odd = [name for name, _ in model.named_parameters() if name in state and not state[name].isfinite().all()]
    if odd and not fit_follows:
        raise InputError(
            f"the weights of {path} are not finite: {some(odd)}; whatever it answered would be no number. Train again, "
            "or use a checkpoint of an earlier epoch"
        )
    model.load_state_dict(state)
