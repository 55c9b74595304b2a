"""``WildTypeModel``: base of the models that encode the unperturbed cell once and read it for every sample."""

from __future__ import annotations

from typing import Any

import torch

from torchcell.core.model import Model


class WildTypeModel(Model):
    """A subclass gives ``encode``, and reads what ``wild_type`` returns.

    The encoding is made once a training step, where ``losses`` finds what ``forward`` made, and in evaluation once for
    given weights and precision, however many batches there are.
    """

    _step: Any = None
    _evaluation: tuple[Any, Any] | None = None

    def encode(self) -> Any:
        """The wild type from the present weights."""
        raise NotImplementedError("a model that reads the wild type must define encode")

    def wild_type(self) -> Any:
        """The encoding of this step; in evaluation that of these weights."""
        if self.training or torch.is_grad_enabled():
            self._step = self.encode()
            return self._step
        precision = torch.is_autocast_enabled(self.device.type), torch.get_autocast_dtype(self.device.type)
        state = precision, [(parameter.data_ptr(), parameter._version) for parameter in self.parameters()]
        if self._evaluation is None or self._evaluation[0] != state:
            self._evaluation = state, self.encode()
        return self._evaluation[1]

    def take_step(self) -> Any:
        """The encoding that gave this step's prediction, once; a new one where there was none."""
        step, self._step = self._step, None
        return self.encode() if step is None else step

    def train(self, mode: bool = True) -> WildTypeModel:
        """Switch mode, and forget what a step has encoded; what was encoded in evaluation is kept until training."""
        self._step = None
        if mode:
            self._evaluation = None
        return super().train(mode)
