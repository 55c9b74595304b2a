"""What the cell graph transformer's config may say: one clear error for each value that does not go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchcell.data.errors import InputError
from torchcell.datamodules.spec import Spec

CHOICES: dict[str, tuple[Any, ...]] = {
    "networks": ("real", "random"),
    "pair_start": ("random", "least_squares"),
    "score": ("product", "difference", None),
}


def check_choices(
    spec: Spec, tokens: bool, choices: Mapping[str, Any], sizes: Mapping[str, float | int], cold_share: float | int
) -> None:
    """Check the arguments of ``CellGraphTransformer`` against each other and the data.

    Args:
        spec: Of the data.
        tokens: Whether there is anything to make tokens of.
        choices: Words, see ``CHOICES``.
        sizes: Numbers that must not be negative; ``pair_width`` and ``cold_start`` among them.
        cold_share: Share of the genes treated as untrained.

    Raises:
        InputError: What is wrong, and what to set.
    """
    for name, word in choices.items():
        if word not in CHOICES[name]:
            raise InputError(f"model.{name}={word!r}: choose from {list(CHOICES[name])}")
    for name, value in sizes.items():
        if not value >= 0:
            raise InputError(f"model.{name}={value}: it must be 0 or more")
    if not 0 <= cold_share <= 1:
        raise InputError(f"model.cold_share={cold_share}: it is a share, from 0 to 1")
    if not tokens:
        raise InputError("there is nothing to make tokens of: give data.features, or set model.free_embedding=true")
    if cold_share and not sizes["cold_start"]:
        raise InputError(f"model.cold_share={cold_share} needs model.cold_start; set both to 0 or none")
    if choices["pair_start"] != "least_squares":
        return
    if not sizes["pair_penalty"] > 0:
        raise InputError("model.pair_start=least_squares needs model.pair_penalty above 0")
    step, width = 2 * len(spec.outputs), sizes["pair_width"]
    if width % step or not width:
        raise InputError(f"model.pair_start=least_squares needs model.pair_width, a multiple of {step}, not {width}")
    if len(spec.kinds) > 1:
        raise InputError(
            f"model.pair_start=least_squares has one value a pair, and the data has kinds {list(spec.kinds)}; "
            "set model.pair_start=random"
        )
