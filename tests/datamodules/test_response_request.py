"""Treatments to predict: drugs by name or structure, new ones with vectors of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from torchcell.data.errors import InputError
from torchcell.data.morgan import Morgan
from torchcell.data.simulate_response import simulated_response
from torchcell.datamodules.response import ResponseDataModule

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


@pytest.fixture(scope="module")
def module() -> ResponseDataModule:
    record = simulated_response(n_drugs=12, doses=[1.0, 10.0], n_genes=20)
    return ResponseDataModule(record, SPLIT, Morgan(bits=64))


def write(folder: Path, rows: list[str]) -> str:
    path = folder / "asked.csv"
    path.write_text("\n".join(["drug,smiles,cell_line,dose_value,time", *rows]) + "\n")
    return str(path)


def test_known_drugs_stand_on_their_lines_mean_control(module, tmp_path):
    table = module.spec.extras["molecules"]
    name, line = table["id"][3], module.spec.extras["lines"][1]
    asked = module.read_request(write(tmp_path, [f"{name},,{line},3.0,24"]), module.spec)
    samples = module.pack(asked, module.spec)
    batch = samples[torch.tensor([0])]
    assert batch.drug.tolist() == [3]
    assert batch.line.tolist() == [1]
    assert torch.equal(batch.control[0], module.spec.extras["line_control"][1])
    assert torch.isnan(batch.target).all()
    assert batch.log_dose.item() == pytest.approx(np.log10(3.0), abs=1e-6)
    assert module.widened(asked, module.spec) is module.spec


def test_a_structure_finds_its_drug_under_any_name_and_a_new_one_gets_a_row(module, tmp_path):
    table = module.spec.extras["molecules"]
    line = module.spec.extras["lines"][0]
    path = write(tmp_path, [f"alias,{table['smiles'][2]},{line},1.0,24", f"fresh,CCCCCCO,{line},1.0,24"])
    asked = module.read_request(path, module.spec)
    wider = module.widened(asked, module.spec)
    held = wider.extras["molecules"]
    assert asked.drug.tolist() == [table["id"][2], "fresh"]
    assert len(held["id"]) == len(table["id"]) + 1
    assert torch.equal(held["vectors"][:-1], table["vectors"])
    np.testing.assert_array_equal(held["vectors"][-1].numpy(), Morgan(bits=64).vectors(["CCCCCCO"])[0])
    assert not held["trained"][-1]


def test_what_the_model_cannot_know_is_named(module, tmp_path):
    line = module.spec.extras["lines"][0]
    with pytest.raises(InputError, match="lines that the model was not trained on: 'A376'.*A375"):
        module.read_request(write(tmp_path, [f"{module.spec.extras['molecules']['id'][0]},,A376,1.0,24"]), module.spec)
    with pytest.raises(InputError, match="no SMILES: 'nobody'"):
        module.read_request(write(tmp_path, [f"nobody,,{line},1.0,24"]), module.spec)
    with pytest.raises(InputError, match="negative"):
        module.read_request(write(tmp_path, [f"x,CCO,{line},-1.0,24"]), module.spec)
