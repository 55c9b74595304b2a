"""Specs of screens without a datamodule."""

from __future__ import annotations

from typing import Any

import torch

from torchcell.screen.spec import ScreenSpec


def screen_spec(
    task: str, outputs: Any, genes: tuple[str, ...], kinds: Any, center: Any, scale: Any, graph: Any, **more: Any
) -> ScreenSpec:
    """Training samples of all genes, of one to three of them each; ``more`` says otherwise."""
    trained = {"trained_genes": torch.arange(len(genes)), "trained_sizes": (1, 2, 3)}
    return ScreenSpec(task, tuple(outputs), genes, tuple(kinds), center, scale, graph, "hash", **(trained | more))
