"""Options of a model: frozen dataclasses, one a concern, that check their own values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchcell.io.errors import InputError

Rule = Callable[[Any], str]
"""What a value must be, in words; empty where it is."""


def one_of(*choices: Any) -> Rule:
    """One of a few words, or None where that is among them."""
    return lambda value: "" if value in choices else f"choose from {list(choices)}"


def at_least(low: float, optional: bool = False) -> Rule:
    """A number that is ``low`` or more; with ``optional`` also none."""
    text = f"it must be {low:g} or more" + (", or null" if optional else "")
    return lambda value: "" if (optional and value is None) or (value is not None and value >= low) else text


def a_rate() -> Rule:
    """A number from 0 to 1."""
    return lambda value: "" if value is not None and 0 <= value <= 1 else "it is a rate, from 0 to 1"


def check_options(group: str, options: Any, **rules: Rule) -> None:
    """Check the fields of ``options``, each by its rule.

    Args:
        group: Dotted key of the options in the config, e.g. ``model.encoder``.
        options: A dataclass.
        rules: Name of a field -> its rule.

    Raises:
        InputError: All fields that break their rule, by their dotted keys.
    """
    values = {name: getattr(options, name) for name in rules}
    wrong = [f"{group}.{name}={values[name]!r}: {text}" for name, rule in rules.items() if (text := rule(values[name]))]
    if wrong:
        raise InputError("; ".join(wrong))
