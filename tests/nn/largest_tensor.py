"""``LargestTensor``: how large the largest tensor is that any operation makes, in forward and backward."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Within ``with LargestTensor() as seen``, ``seen.numel`` is the number of entries of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor) and each.layout == torch.strided and not func.is_view:
                self.numel = max(self.numel, each.numel())
        return out
