"""A config that somebody sent, as plain values: YAML without objects, aliases or includes, and its interpolations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torchcell.io.errors import InputError, some

LARGEST = 2**21
"""Bytes of a config; ours have some thousands."""
DEEPEST = 40
"""Levels of a config; ours have ten."""
MOST = 40_000
"""Values of a config, also once its interpolations are filled in; ours have some hundreds, with a list of all genes
20,000."""
LARGEST_NUMBER = 2**64
"""A longer one, written as 0xfff..., has no text in Python."""
OF_HYDRA = ("defaults", "hydra")
"""Keys by which Hydra would add other files, call objects or look into other folders."""
NODES = re.compile(r"\$\{(?P<key>[\w.-]+)\}")
SELECT = re.compile(r"\$\{oc\.select:(?P<key>[\w.-]+)(,(?P<default>[\w.-]*))?\}")
NODES_OF_JOB = "${oc.decode:${oc.env:SLURM_NNODES,1}}"
"""The one variable that a config of ours reads: how many nodes this job has."""


def read_plain(path: Path) -> dict[str, Any]:
    """The config in a file, see ``parse_plain``."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise InputError(f"{path}: a config of {size:,} bytes; torchcell writes less than {LARGEST:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error.reason}); copy it again") from error
    return parse_plain(text, path)


def parse_plain(text: str, source: str | Path) -> dict[str, Any]:
    """A config of plain values, as Hydra would read the numbers in it.

    Args:
        text: YAML.
        source: Of the text, for messages.

    Raises:
        InputError: No YAML of plain values; larger or deeper than a config is; an alias, which can make a short text
            fill the memory.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(text, str):
        raise InputError(f"{source}: the config is no text but a {type(text).__name__}")
    if len(text) > LARGEST:
        raise InputError(f"{source}: a config of {len(text):,} bytes; torchcell writes less than {LARGEST:,}")
    try:
        _refuse_bombs(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), source)
        config = OmegaConf.create(text)
        plain = OmegaConf.to_container(config, resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: the config can't be read ({type(error).__name__}: {why})") from error
    if not isinstance(plain, dict):
        raise InputError(f"{source}: the config is a {type(plain).__name__}, not a mapping of keys")
    if odd := [key for key, value in _leaves(plain) if isinstance(value, int) and abs(value) > LARGEST_NUMBER]:
        raise InputError(f"{source}: numbers that are too long at {some(odd)}")
    return {str(key): value for key, value in plain.items()}


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def _refuse_bombs(events: Any, source: str | Path) -> None:
    import yaml

    depth, values = 0, 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{source}: the config holds an alias (*{event.anchor}), which torchcell never writes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.ScalarEvent)
        if values > MOST:
            raise InputError(f"{source}: the config holds more than {MOST:,} values, which none of torchcell's does")
        if depth > DEEPEST:
            raise InputError(f"{source}: the config is deeper than {DEEPEST} levels, which none of torchcell's is")


def resolved(config: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """A run's config with its interpolations filled in, all of which lead to keys of its own or to the job's size.

    Args:
        config: See ``parse_plain``.
        source: Of the config, for messages.

    Raises:
        InputError: A key of Hydra's; any other interpolation; one that leads nowhere, or to itself.
    """
    if found := [key for key in OF_HYDRA if key in config]:
        raise InputError(
            f"{source} has the key(s) {some(found)}, by which Hydra would run or read other files; torchcell writes "
            "none, and nothing of it was run"
        )
    filled: dict[str, Any] = _Filling(dict(config), source).of(dict(config))
    return filled


class _Filling:
    """Fills interpolations in, and counts what it makes."""

    def __init__(self, config: dict[str, Any], source: str | Path) -> None:
        self.config, self.source, self.made = config, source, 0

    def of(self, node: Any, depth: int = 0) -> Any:
        """A node with its interpolations filled in."""
        self.made += 1
        if depth > 2 * DEEPEST or self.made > MOST:
            raise InputError(f"{self.source}: interpolations that lead to themselves, or to more than {MOST:,} values")
        if isinstance(node, dict):
            return {key: self.of(value, depth + 1) for key, value in node.items()}
        if isinstance(node, list):
            return [self.of(value, depth + 1) for value in node]
        if not isinstance(node, str) or "${" not in node:
            return node
        if node == NODES_OF_JOB:
            return int(os.environ.get("SLURM_NNODES", "1"))
        whole = NODES.fullmatch(node) or SELECT.fullmatch(node)
        if whole is not None:
            return self.of(self.selected(whole), depth + 1)
        text = NODES.sub(lambda one: str(self.of(self.selected(one), depth + 1)), node)
        if "${" in text or len(text) > LARGEST:
            raise InputError(
                f"{self.source} holds an interpolation that is not followed in a run that may be a stranger's: "
                f"{node[:80]!r}; if it is your own, write its value there"
            )
        return text

    def selected(self, found: re.Match[str]) -> Any:
        """What an interpolation leads to."""
        node: Any = self.config
        for part in found["key"].split("."):
            if not isinstance(node, dict) or part not in node:
                if "default" in found.groupdict():
                    return None if found["default"] in (None, "null") else found["default"]
                raise InputError(f"{self.source}: {found[0]} leads nowhere")
            node = node[part]
        return node
