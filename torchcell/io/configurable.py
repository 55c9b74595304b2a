"""What the config of others may call: one closed list of objects, known by identity, for every verb.

A checkpoint or a run folder that somebody sends names objects under ``_target_``. A list of packages would not do: a
module's imports lead from it to all that it imports itself, and next to a data source stands what downloads and writes.
So an object is on the list where it is defined, by ``@configurable``, or because its class is:

- of a base that is marked with its subclasses: models, predictors, datamodules, specs;
- a part of a model: a frozen dataclass or a torch module that is defined below ``torchcell/<task>/models``;
- an optimizer or a scheduler of ``torch.optim``.

Callbacks and the trainer are on lists of their own, for the places of a run's config that hold them. What is on a list
takes no path to write to and no address; ``tests/security`` reads the signatures of all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar, overload

from torchcell.io.errors import InputError

Found = TypeVar("Found")

NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", re.ASCII)
"""Of an object: nothing private."""
PART = re.compile(r"torchcell\.\w+\.models\.")
"""Modules that hold models and their parts."""
TRAINER, CALLBACKS = "trainer", "callbacks"
"""Places of a run's config with lists of their own."""
OF_TRAINER = ("lightning.Trainer", "lightning.pytorch.Trainer", "lightning.pytorch.strategies.DDPStrategy")
NOT_OF_OTHERS = (
    "default_root_dir", "logger", "callbacks", "plugins", "profiler", "model_registry", "enable_checkpointing",
)  # fmt: skip
"""Keys of the trainer that say where it writes, or are the run's own."""
ADDRESS = "://"
"""In a text, the sign of an address: ours are paths on this machine."""

_marked: dict[Any, str] = {}
_bases: list[type] = []


@overload
def configurable(found: Found) -> Found: ...
@overload
def configurable(*, subclasses: bool = False, place: str = "") -> Callable[[Found], Found]: ...
def configurable(found: Any = None, *, subclasses: bool = False, place: str = "") -> Any:
    """Put a function or a class on the list of what the config of others may call.

    Args:
        found: It takes no path to write to, and no address; for a class method, the function below ``@classmethod``.
        subclasses: A class whose subclasses are on the list too, as far as they are ours or of a trusted package.
        place: Of a run's config, where it is allowed and nowhere else; by default in data, graph, model and baselines.

    Example:
        >>> @configurable
        ... def my_screen(path: str):
        ...     ...
    """

    def mark(one: Any) -> Any:
        _marked[one] = place
        if subclasses:
            _bases.append(one)
        return one

    return mark if found is None else mark(found)


def check_config(config: Any, trust: Sequence[str] = (), place: str = "", elsewhere: bool = False) -> None:
    """Refuse a config of others that calls what is not on the list, holds an interpolation, or names an address.

    Args:
        config: A node of it, as it stands in the file; nothing of it is run.
        trust: Packages whose objects the user trusts besides.
        place: Key of a run's config that the node stands under.
        elsewhere: Whether it is for the code of another commit; objects of trusted packages may then be missing here.

    Raises:
        InputError: What is refused, by its name or its key.
    """
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
    check_plain(plain, place)
    _check_node(plain, tuple(trust), place, place if place in (TRAINER, CALLBACKS) else "", elsewhere, False)


def find(name: str, trust: Sequence[str] = (), place: str = "") -> Any:
    """The object of a name, which is on the list.

    Raises:
        InputError: It is not, or not there.
    """
    # Nothing is imported but what could hold an object of the list: to import a module is to run it.
    roots = ("torchcell", "torch.optim", *trust)
    if not NAME.fullmatch(name) or not (_below(name, roots) or (place == TRAINER and name in OF_TRAINER)):
        raise InputError(_refusal(name, place))
    found = _located(name)
    if not _is_listed(found, name, tuple(trust), place):
        raise InputError(_refusal(name, place))
    return found


def check_plain(config: Any, key: str = "") -> None:
    """Refuse interpolations: a saved config has none, and one could lead to what was not checked.

    Raises:
        InputError: A text with ``${``, told by its key.
    """
    if isinstance(config, dict):
        for name, value in config.items():
            check_plain(name, f"{key}.{name}")
            check_plain(value, f"{key}.{name}")
    elif isinstance(config, list):
        for i, value in enumerate(config):
            check_plain(value, f"{key}[{i}]")
    elif isinstance(config, str) and "${" in config:
        raise InputError(
            f"the config holds an interpolation at {key.lstrip('.')!r}: {config[:80]!r}; torchcell writes none there, "
            "so the file was tampered with or made by another program, and nothing of it was run"
        )


def _check_node(node: Any, trust: tuple[str, ...], key: str, place: str, elsewhere: bool, is_trusted: bool) -> None:
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None:  # null calls nothing
            is_trusted = isinstance(target, str) and _below(target, trust)
            _check_target(target, trust, place, elsewhere and is_trusted)
            if target in OF_TRAINER and (odd := [name for name in node if name in NOT_OF_OTHERS]):
                raise InputError(f"the config gives the trainer {', '.join(odd)}, which are for you to give")
        for name, value in node.items():
            _check_node(value, trust, f"{key}.{name}", place, elsewhere, is_trusted)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _check_node(value, trust, f"{key}[{i}]", place, elsewhere, is_trusted)
    elif isinstance(node, str) and ADDRESS in node and not is_trusted:
        raise InputError(
            f"the config names an address at {key.lstrip('.')!r}: {node[:80]!r}; data are read from this machine only: "
            "get the file, and give its path"
        )


def _check_target(target: Any, trust: tuple[str, ...], place: str, may_miss: bool) -> None:
    if not isinstance(target, str):
        raise InputError(_refusal(str(target), place))
    try:
        find(target, trust, place)
    except _MissingError:
        if not may_miss:
            raise


class _MissingError(InputError):
    """An object that is not there."""


def _located(name: str) -> Any:
    from hydra.errors import HydraException
    from hydra.utils import get_object

    try:
        return get_object(name)
    except (ImportError, ValueError, HydraException) as error:
        raise _MissingError(
            f"the config asks for {name!r}, which this torchcell does not have; another version of torchcell wrote it: "
            "install that version, or train again"
        ) from error


def _is_listed(found: Any, name: str, trust: tuple[str, ...], place: str) -> bool:
    if place == TRAINER and name in OF_TRAINER:
        return True
    module = str(getattr(found, "__module__", None))
    if _below(name, trust) and _below(module, trust):
        return True
    function = getattr(found, "__func__", found)
    try:
        marked = _marked.get(function)
    except TypeError:  # no hash, and so neither a function nor a class
        return False
    if marked is not None:
        return marked == place
    if place or not isinstance(found, type):
        return False
    if any(issubclass(found, base) for base in _bases):
        return _below(module, ("torchcell", *trust))
    return _is_part(found, module) or _is_of_torch(found, module)


def _is_part(found: type, module: str) -> bool:
    """Whether it is a part of a model of ours: options, or a network."""
    if not PART.match(module):
        return False
    from torch import nn

    return issubclass(found, nn.Module) or (is_dataclass(found) and found.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _is_of_torch(found: type, module: str) -> bool:
    if not _below(module, ("torch.optim",)):
        return False
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    return issubclass(found, Optimizer | LRScheduler)


def _below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _refusal(name: str, place: str) -> str:
    what = place or "models, their parts and options, data, graphs, features, baselines, optimizers and schedulers"
    return (
        f"the config asks to call {name!r}, which is not on the list of what a config of others may call ({what} of "
        "torchcell), and nothing of it was run; if it is of a package of yours, trust that package: trust=[PACKAGE], "
        "of reproduce --trust PACKAGE"
    )
