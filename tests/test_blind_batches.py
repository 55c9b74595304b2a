"""What a model may not read is not in the batch that ``forward`` is given: in no task, in no tensor, in no pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from drug_response.small_responses import response_batch, response_spec
from small_cell_sets import cell_batch, cell_spec
from torch import Tensor

from torchcell.cells.datamodule import CellSetDataModule
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulate_perturbseq
from torchcell.core.batch import Batch
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.drug_response.datamodule import ResponseDataModule
from torchcell.drug_response.molecules import Morgan
from torchcell.drug_response.simulate import simulated_response
from torchcell.knowledge_graph.datamodule import LinkDataModule
from torchcell.knowledge_graph.simulate import simulated_links
from torchcell.screen.datamodule import PerturbationDataModule

SPLIT = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


def screen(make_screen) -> RecordDataModule:
    return PerturbationDataModule(make_screen([f"A|B|C{i}" for i in range(40)]), SPLIT)


def drug_response(_) -> RecordDataModule:
    return ResponseDataModule(simulated_response(n_drugs=12, n_genes=20), SPLIT, Morgan(bits=32))


def cells(_) -> RecordDataModule:
    record = simulate_perturbseq(n_genes=40, n_regulators=20, n_doubles=4, cells_per_condition=20).cells.lognorm()
    return CellSetDataModule(Pseudobulk.from_cells(record), SPLIT)


def knowledge_graph(_) -> RecordDataModule:
    return LinkDataModule(simulated_links(edge_types="CtD"), SPLIT)


TASKS = {make.__name__: make for make in (screen, drug_response, cells, knowledge_graph)}
TRUTH = {
    "screen": {"target"},
    "drug_response": {"target", "eval_center"},
    "cells": {"target", "perturbed", "eval_control"},
    "knowledge_graph": {"target"},
}
"""Of each task, the fields of a batch that tell of the truth."""


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor within a batch, by its path."""
    if isinstance(value, Tensor):
        yield name, value
    elif is_dataclass(value):
        for one in fields(value):
            yield from tensors(getattr(value, one.name), f"{name}.{one.name}")
    elif isinstance(value, dict | tuple | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(each, f"{name}[{key}]")


def profiles(value: Tensor) -> set[bytes]:
    """Its measured rows, where it has any that no other tensor would have by chance, as one column of labels would."""
    if value.ndim < 2 or value.shape[-1] < 5:
        return set()
    rows = value.reshape(-1, value.shape[-1])
    return {row.contiguous().numpy().tobytes() for row in rows if torch.isfinite(row).all() and len(row.unique()) > 2}


def batches(data: RecordDataModule) -> Iterator[Batch]:
    """The first of training and of every part."""
    yield next(iter(data.train_dataloader()))
    for part in ("train", "val", "test"):
        yield next(iter(data.loader(part)))


@pytest.mark.parametrize("task", TASKS)
def test_no_tensor_of_a_blind_batch_holds_a_number_of_the_truth(task, make_screen):
    """Cells once carried the truth's half of the controls in the very tensor that a model reads its own half of."""
    n_compared = 0
    for n_seen, batch in enumerate(batches(TASKS[task](make_screen))):
        hidden = {one.name for one in fields(batch) if one.metadata.get("evaluation_only")}
        assert hidden == TRUTH[task]
        blind = batch.blind()
        assert type(blind) is type(batch)
        assert len(blind) == len(batch)
        seen = {name: value for name, value in tensors(blind) if value.is_floating_point()}
        if task == "drug_response" and n_seen == 0:
            del seen[".plate_mean"]  # in training the plate's other wells are known, and are an input by name
        truths = [each for name in hidden for each in tensors(getattr(batch, name), name)]
        for (path, truth), (other, value) in itertools.product(truths, seen.items()):
            if truth.is_floating_point() and truth.numel():
                assert value.untyped_storage().data_ptr() != truth.untyped_storage().data_ptr(), (path, other)
                assert not profiles(truth) & profiles(value), (path, other)
                n_compared += 1
        for name in hidden:
            for path, value in tensors(getattr(blind, name), name):
                if value.is_floating_point():
                    assert not value.numel() or torch.isnan(value).all(), path
        for one in fields(batch):
            if one.name not in hidden:
                assert getattr(blind, one.name) is getattr(batch, one.name), one.name
    assert n_compared


@pytest.mark.parametrize("task", TASKS)
def test_a_blind_batch_is_cut_and_moved_as_any_other(task, make_screen):
    batch = next(iter(TASKS[task](make_screen).train_dataloader())).blind()
    part = batch.narrow(1, 3)
    assert len(part) == 2
    assert len(batch.to("meta")) == len(batch)
    assert len(part.blind()) == 2


class Watching(Model):
    """Keeps what its ``forward`` was given."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.weight = torch.nn.Parameter(torch.zeros(len(spec.outputs)))
        self.given: list[Batch] = []

    def forward(self, batch: Any) -> Tensor:
        self.given.append(batch)
        return self.weight.expand(len(batch), -1)


@pytest.mark.parametrize(
    ("spec", "make"), [(response_spec(), response_batch), (cell_spec(), cell_batch)], ids=["drug_response", "cells"]
)
def test_no_pass_gives_forward_the_truth(spec, make):
    """In training the target stood in the batch: a model that reads it there learns nothing else, and shows nowhere."""
    model, batch = Watching(spec), make(spec, 6)
    loss = model.training_step(batch, 0)
    assert torch.isfinite(loss), "losses are given what forward is not"
    model.validation_step(batch, 0)
    model.test_step(batch, 0)
    model.predict_step(batch)
    assert len(model.given) == 4
    for given in model.given:
        assert torch.isnan(given.target).all()
