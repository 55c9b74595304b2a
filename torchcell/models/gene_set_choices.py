"""What a gene-set transformer may be asked for."""

from __future__ import annotations

from torchcell.data.errors import InputError
from torchcell.datamodules.spec import Spec

UNITS = ("cells", "change", "none")


def check_choices(
    spec: Spec, attention: str, global_tokens: int, free_drop: float | int, standardise: str, distribution: bool = False
) -> None:
    """Refuse what the model or its data can't give.

    Raises:
        InputError: An unknown choice, no global token, sparse attention without neighbours, or a term on cells where
            the data train on means.
    """
    if distribution and spec.extras.get("pseudobulk"):
        raise InputError(
            "model.distribution=true is a term on the cells of a condition, and data.pseudobulk=true trains on means; "
            "set one of them to false"
        )
    if standardise not in UNITS:
        raise InputError(f"model.standardise={standardise!r}: choose one of {list(UNITS)}")
    if global_tokens < 1:
        raise InputError(f"model.global_tokens={global_tokens}: the perturbation needs at least one to enter by")
    if not 0 <= free_drop <= 1:
        raise InputError(f"model.free_drop={free_drop} is a share between 0 and 1")
    if attention == "neighbours" and "neighbours" not in spec.extras:
        raise InputError(
            "model.attention=neighbours needs a list of neighbours a gene, which these data don't give; choose "
            "data with a network, or model.attention=full or induced"
        )
