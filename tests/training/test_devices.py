"""MPS is never taken by itself, and by name only where its gradients are right."""

from __future__ import annotations

import pytest
import torch

from torchcell.io.errors import InputError
from torchcell.nn.sparse import Sparse
from torchcell.training.distributed import devices
from torchcell.training.distributed import devices as gradient_check
from torchcell.training.distributed.devices import check_accelerator, check_gradients


@pytest.mark.parametrize(("cuda", "chosen"), [(True, "gpu"), (False, "cpu")])
def test_auto_is_cuda_or_the_cpu_and_never_mps(monkeypatch, cuda, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert check_accelerator("auto") == chosen


@pytest.mark.parametrize("name", ["cpu", "gpu", "cuda"])
def test_others_are_taken_as_they_are_and_nothing_is_checked(name):
    assert check_accelerator(name, check=lambda device: pytest.fail("checked")) == name


def test_mps_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="finds no MPS device.*trainer=cpu"):
        check_accelerator("mps", available=False)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(devices, "NODES", (60, 20, 10))
    monkeypatch.setattr(devices, "EDGES", 200)


def test_mps_with_right_gradients_is_taken(small):
    assert check_accelerator("mps", device="cpu", available=True) == "mps"
    assert check_gradients("cpu").agree


@pytest.mark.parametrize("lost", ["collect", "deliver"])
def test_mps_with_wrong_gradients_is_refused(monkeypatch, small, lost):
    """One of the two runs of the layer, the device's, counts a hundredth too much of what edges bring."""
    runs = []
    right = {name: getattr(Sparse, name) for name in ("collect", "deliver")}
    original = gradient_check._step

    def step(*arguments):
        runs.append(len(runs))
        return original(*arguments)

    def wrong(self, x_HE, *rest):
        return right[lost](self, x_HE * (1.01 if len(runs) == 1 else 1.0), *rest)

    monkeypatch.setattr(gradient_check, "_step", step)
    monkeypatch.setattr(Sparse, lost, wrong)
    with pytest.raises(InputError, match=r"mps is refused: cpu does not agree with cpu to 1e-03.*trainer=cpu"):
        check_accelerator("mps", device="cpu", available=True)
    assert len(runs) == 2
