"""One contract for every model: each file of ``conf/model`` is held to it, a new one too, without a word here."""

from __future__ import annotations

import functools

import pytest
import torch
from model_contract import CONTRACT, DATA, Case, data_of, small_run, spec_of, trained
from omegaconf import DictConfig, OmegaConf
from small_runs import composed
from torch import Tensor, nn

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationBatch
from torchcell.screen.spec import ScreenSpec
from torchcell.training.entry import conf_dir

MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))


@functools.cache
def task_data(spec: type) -> RecordDataModule:
    return data_of(composed(*DATA[spec]))


@pytest.fixture(scope="module", params=MODELS)
def case(request) -> Case:
    """Each model trained once, for all that is asked of it."""
    spec = spec_of(composed(f"model={request.param}").model)
    cfg = composed(*small_run(request.param))
    OmegaConf.resolve(cfg)
    return trained(cfg, task_data(spec))


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_contract(case, check, tmp_path):
    check(case, tmp_path)


class Faulty(Model):
    """The sum over the genes of a perturbation, with one fault."""

    reads = ScreenSpec
    memory_options = {"again": False}  # noqa: RUF012

    def __init__(self, spec: ScreenSpec, fault: str, again: bool = False, optimizer=None) -> None:
        super().__init__(spec, optimizer)
        self.fault, self.again = fault, again
        self.vector, self.head = nn.Embedding(len(spec.genes), 8), nn.Linear(8, len(spec.outputs))
        self.idle = nn.Linear(2, 2) if fault == "every_parameter_gets_a_gradient" else None
        self.drawn = torch.rand(())  # in no state_dict

    def forward(self, batch: PerturbationBatch) -> Tensor:
        vector, fault = self.vector(batch.gene), self.fault
        if fault == "the_order_of_members_changes_nothing":
            vector = vector * torch.arange(1, len(vector) + 1)[:, None]
        found = self.head(vector.new_zeros(len(batch), 8).index_add(0, batch.owner, vector))
        if fault == "a_batch_of_one_is_its_row_in_a_larger_one":
            found = found - found.mean(0)
        if fault == "a_checkpoint_gives_the_same_predictions":
            found = found + self.drawn
        if fault == "a_prediction_needs_no_target":
            found = found + batch.target
        if fault == "bfloat16_is_finite_and_near":
            found = (found + 1000) - 1000
        if fault == "memory_options_change_nothing" and self.again:
            found = 2 * found
        if fault == "predictions_are_in_the_unit_of_the_target":
            return found
        return self.center + self.scale * found


def faulty(fault: str) -> DictConfig:
    cfg = composed(*DATA[ScreenSpec], "~model")
    OmegaConf.set_struct(cfg, False)
    adam = {"_target_": "torch.optim.AdamW", "_partial_": True}
    cfg.model = {"_target_": f"{__name__}.Faulty", "fault": fault, "again": False, "optimizer": adam}
    OmegaConf.resolve(cfg)
    return cfg


@pytest.mark.parametrize("fault", ["none", *(check.__name__ for check in CONTRACT)])
def test_each_check_finds_its_fault(fault, tmp_path):
    case = trained(faulty(fault), task_data(ScreenSpec))
    found = []
    for check in CONTRACT:
        try:
            check(case, tmp_path)
        except (AssertionError, InputError):  # weights that are no numbers are refused before they are compared
            found.append(check.__name__)
    assert (found == []) if fault == "none" else (fault in found)
