"""Which names a config that was read from a checkpoint may call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf

from torchcell.data.errors import InputError

TRUSTED = (
    "torchcell.models", "torchcell.nn", "torchcell.data", "torchcell.datamodules", "torchcell.graph",
    "torchcell.baselines", "torch.optim",
)  # fmt: skip
"""Packages below which a ``_target_`` that was read from a checkpoint may be called."""

RUNNING = (*TRUSTED, "torchcell.callbacks", "torchcell.run", "torch.nn", "lightning.pytorch", "lightning.Trainer")
"""Those that the config of a whole run may call."""

WRITING = (
    "torchcell.data.cache", "torchcell.data.tables", "torchcell.data.convert_embeddings",
    "torchcell.data.embedding_table", "torchcell.data.arrays", "torchcell.data.__main__", "torchcell.datamodules.base",
)  # fmt: skip
"""Modules among them that write files where they are told to, which no model and no data set needs."""


def check_targets(config: Any, trust: Sequence[str] = (), trusted: Sequence[str] = TRUSTED) -> None:
    """Refuse a config that names a ``_target_`` outside the trusted packages.

    The name must lie below a trusted package, and so must the module that defines what it leads to:
    a module's imports would otherwise open a way to everything that it imports itself.

    Args:
        config: As it stands in the checkpoint.
        trust: Packages that the user trusts besides.
        trusted: Packages of ours that may be called at this place.

    Raises:
        InputError: Such a target; one that is not there; an interpolation, which could hide one.
    """
    allowed = (*trusted, *trust)
    plain = OmegaConf.to_container(config) if OmegaConf.is_config(config) else config
    check_plain(plain)
    for target in _targets(plain):
        if not _below(target, allowed) or _below(target, WRITING):
            raise InputError(_refusal(target, allowed))
        try:
            found = get_object(target)
        except (ImportError, ValueError, HydraException) as error:
            raise InputError(
                f"the checkpoint asks for {target!r}, which this torchcell does not have; another version of "
                "torchcell wrote it: install that version, or train again"
            ) from error
        module = str(getattr(found, "__module__", None))
        if not _below(module, allowed) or _below(module, WRITING):
            raise InputError(_refusal(target, allowed))


def check_plain(config: Any, place: str = "") -> None:
    """Refuse interpolations: a saved config has none, and one could lead to what was not checked.

    Raises:
        InputError: A text with ``${``, told by its key.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            check_plain(key, f"{place}.{key}")
            check_plain(value, f"{place}.{key}")
    elif isinstance(config, list):
        for i, value in enumerate(config):
            check_plain(value, f"{place}[{i}]")
    elif isinstance(config, str) and "${" in config:
        raise InputError(
            f"the checkpoint's config holds an interpolation at {place.lstrip('.')!r}: {config[:80]!r}; torchcell "
            "writes none, so the file was tampered with or made by another program, and nothing of it was run"
        )


def check_run_targets(config: Any, trust: Sequence[str] = ()) -> None:
    """Refuse the config of a whole run, interpolations and all, that calls what no run calls.

    Args:
        config: As it stands in ``config.yaml``.
        trust: Packages that the user trusts besides.

    Raises:
        InputError: Such a target; a text that could turn into one.
    """
    allowed = (*RUNNING, *trust)
    plain = OmegaConf.to_container(config, resolve=False)
    for target in _targets(plain):
        if not _below(target, allowed):
            raise InputError(
                f"the run's config asks to call {target!r}, which lies outside the trusted packages {allowed}; "
                "if it is yours, add --trust PACKAGE"
            )
    for text in _texts(plain):
        if "_target_" in text:
            raise InputError(
                f"the run's config hides a _target_ in a text, which torchcell never writes: {text[:80]!r}"
            )


def _texts(node: Any) -> list[str]:
    if isinstance(node, dict | list):
        return [text for value in (node.values() if isinstance(node, dict) else node) for text in _texts(value)]
    return [node] if isinstance(node, str) else []


def _refusal(target: str, allowed: Sequence[str]) -> str:
    return (
        f"the checkpoint asks to call {target!r}, which lies outside the trusted packages {allowed}, or writes files; "
        "if it is yours, add trust=[PACKAGE]"
    )


def _below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _targets(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for value in node.values() for target in _targets(value)]
    if isinstance(node, list):
        return [target for value in node for target in _targets(value)]
    return []
