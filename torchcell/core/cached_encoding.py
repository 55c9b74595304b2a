"""``WildTypeModel``: base of models that encode the unperturbed cell once and use the encoding for every sample."""

from __future__ import annotations

from typing import Any

import torch

from torchcell.core.model import Model


class WildTypeModel(Model):
    """A subclass defines ``encode``, and gets the encoding from ``wild_type``.

    In training the encoding is computed once a step: ``losses`` gets the one of ``forward`` by ``take_step``. In
    evaluation it is computed once for given weights and precision, however many batches there are.
    """

    _step: Any = None
    _evaluation: tuple[Any, Any] | None = None

    def encode(self) -> Any:
        """Encode the wild type with the present weights."""
        raise NotImplementedError("a model that encodes the wild type must define encode")

    def wild_type(self) -> Any:
        """The encoding of this step; in evaluation the cached one."""
        if self.training or torch.is_grad_enabled():
            self._step = self.encode()
            return self._step
        precision = torch.is_autocast_enabled(self.device.type), torch.get_autocast_dtype(self.device.type)
        state = precision, [(parameter.data_ptr(), parameter._version) for parameter in self.parameters()]
        if self._evaluation is None or self._evaluation[0] != state:
            self._evaluation = state, self.encode()
        return self._evaluation[1]

    def take_step(self) -> Any:
        """The encoding of this step's prediction, which is then forgotten; a new one where there is none."""
        step, self._step = self._step, None
        return self.encode() if step is None else step

    def train(self, mode: bool = True) -> WildTypeModel:
        """Switch mode and forget the step's encoding; the one of evaluation is kept until training."""
        self._step = None
        if mode:
            self._evaluation = None
        return super().train(mode)
