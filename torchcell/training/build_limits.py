"""Limits while a model is built of a config that may be a stranger's: it is about as large as its weights.

A size in a config (``dim: 1000000``, ``layers: 10000000``) would else fill the memory, or take hours, before the
weights are found not to fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module
from torch.overrides import TorchFunctionMode

from torchcell.io.ceiling import USUAL
from torchcell.io.errors import InputError

TIMES = 4
"""How many times the weights all parameters, or one tensor, may take while a model is built."""
MORE = 1000
"""Parameters and modules beyond that: parts without weights."""
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye)
"""What makes a tensor of a size that is given."""


@contextmanager
def no_larger_than(path: Path, state: Mapping[str, Any]) -> Iterator[None]:
    """Within the block no model is built that is much larger than its weights.

    Args:
        path: Of the checkpoint.
        state: The weights by name.

    Raises:
        InputError: One tensor, or all parameters, or their number, are.
    """
    found = [value for value in state.values() if isinstance(value, torch.Tensor)]
    limit = _Limit(path, TIMES * sum(map(_bytes, found)) + USUAL, TIMES * len(found) + MORE)
    hooks = (
        module.register_module_parameter_registration_hook(limit.on_parameter),
        module.register_module_module_registration_hook(limit.on_module),
    )
    try:
        with limit:
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Limit(TorchFunctionMode):
    """Counts what is made while it is entered."""

    def __init__(self, path: Path, most: int, parts: int) -> None:
        super().__init__()
        self.path, self.most, self.parts = path, most, parts
        self.size, self.parameters, self.modules = 0, 0, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in MAKERS and "out" not in kwargs:
            about = {key: value for key, value in kwargs.items() if key not in ("generator", "pin_memory")}
            self._refuse(_bytes(func(*args, **{**about, "device": "meta"})))
        return func(*args, **kwargs)

    def on_parameter(self, _: Any, name: str, parameter: Any) -> None:
        """A parameter became part of a module."""
        if isinstance(parameter, torch.Tensor):
            self.parameters += 1
            self.size += _bytes(parameter)
            self._refuse(self.size)

    def on_module(self, *_: Any) -> None:
        """A module became part of another."""
        self.modules += 1
        self._refuse(0)

    def _refuse(self, size: int) -> None:
        if size > self.most or self.parameters > self.parts or self.modules > 10 * self.parts:
            raise InputError(
                f"{self.path}: its config asks for a model that is larger than its weights by far; it was tampered "
                "with, and nothing of it was used"
            )
