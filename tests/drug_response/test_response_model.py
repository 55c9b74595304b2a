"""What all models of drug response make of a control, a line and a plate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from torchcell.drug_response.datamodule import ResponseDataModule
from torchcell.drug_response.models.base import GeneOptions, InputOptions
from torchcell.drug_response.models.mlp import ResponseMLP
from torchcell.drug_response.molecules import Morgan
from torchcell.drug_response.simulate import simulated_response

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


@pytest.fixture(scope="module")
def module() -> ResponseDataModule:
    record = simulated_response(n_drugs=12, doses=[1.0, 10.0], n_genes=20)
    return ResponseDataModule(record, SPLIT, Morgan(bits=64))


def test_the_own_control_of_a_request_is_no_part_of_the_predicted_change(module) -> None:
    """A request was drawn to its line's treated mean: the change was the own plate's offset, with its sign turned."""
    inputs = InputOptions(width=8, hidden=8, basal="none")  # reads nothing of the control
    model = ResponseMLP(module.spec, inputs=inputs, hidden=(8, 4), genes=GeneOptions(width=8)).eval()
    record = module.record_whole.subset(np.arange(6)).blind()
    row = [module.spec.lines.index(line) for line in record.cell_line]
    mean = module.spec.line_control.numpy()[row]
    offset = np.random.default_rng(0).normal(scale=3, size=mean.shape).astype(np.float32)

    def change(control: np.ndarray) -> torch.Tensor:
        batch = module.pack(replace(record, control=control), module.spec)[torch.arange(6)]
        with torch.no_grad():
            return model(batch) - batch.input_control

    torch.testing.assert_close(change(mean + offset), change(mean), atol=1e-4, rtol=0)


def test_a_request_without_a_control_of_its_own_stands_on_its_lines_treated_mean(module) -> None:
    record = module.record_whole.subset(np.arange(6)).blind()
    row = [module.spec.lines.index(line) for line in record.cell_line]
    spec, nothing = module.spec, torch.zeros(6, len(module.spec.genes))
    on_mean = replace(record, control=spec.line_control.numpy()[row])
    model = ResponseMLP(module.spec, hidden=(8, 4), genes=GeneOptions(width=8)).eval()
    batch = module.pack(on_mean, module.spec)[torch.arange(6)]
    torch.testing.assert_close(model.express(nothing, batch), spec.line_treated[row], atol=1e-5, rtol=0)
    away = module.pack(replace(on_mean, cell_line=np.array(["A376"] * 6)), module.spec)[torch.arange(6)]
    expected = away.input_control + spec.change_center
    torch.testing.assert_close(model.express(nothing, away), expected, atol=1e-5, rtol=0)
