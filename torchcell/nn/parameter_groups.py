"""Which weights decay, and which never do."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

BARE = (nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)
"""Modules none of whose parameters decay."""


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two groups for an optimiser: weights that decay, and embeddings, norms and biases that never do."""
    decayed: list[Tensor] = []
    kept: list[Tensor] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            keep = isinstance(module, BARE) or parameter.ndim < 2 or "embedding" in name or "bias" in name
            (kept if keep else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
