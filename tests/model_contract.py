"""What every model promises, as checks on one that took a training step; see ``test_model_contract``.

A check takes a ``Case`` and raises ``AssertionError``. ``torchcell.new``'s models are held to the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from small_runs import CELLS, GRAPHS, RESPONSE, SCREEN, built, composed
from torch import Tensor

from torchcell.cells.spec import CellsSpec
from torchcell.core.batch import Batch
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.drug_response.record import Response
from torchcell.drug_response.spec import DrugResponseSpec
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.screen.record import Screen
from torchcell.screen.spec import ScreenSpec
from torchcell.training import build, checkpoint

DATA: dict[type[Spec], tuple[str, ...]] = {
    ScreenSpec: ("benchmark=simulated_cell", *SCREEN),
    DrugResponseSpec: (
        "benchmark=simulated_response", *GRAPHS, *(one for one in RESPONSE if one.startswith("data.")),
        "data.eval_batch_size=8",
    ),
    CellsSpec: ("benchmark=simulated_perturbseq", *(one for one in CELLS if "data." in one), "data.eval_batch_size=8"),
    KnowledgeGraphSpec: (
        "benchmark=simulated_knowledge_graph", "data.record.n_genes=60", "data.record.n_compounds=40",
        "data.record.n_diseases=30", "data.record.n_communities=5", "data.batch_size=16", "data.eval_batch_size=8",
    ),
}  # fmt: skip
"""Of each task, small simulated data that all its models read."""


def spec_of(node: Any) -> type[Spec]:
    """The spec that the model of a config reads; of one that takes any data a screen's."""
    found: type[Spec] = get_object(node._target_).reads
    return ScreenSpec if found is Spec else found


def small_run(name: str) -> tuple[str, ...]:
    """Overrides of a small run of a file of ``conf/model``, with the file's own sizes."""
    return (*DATA[spec_of(composed(f"model={name}").model)], f"model={name}")


def data_of(cfg: DictConfig) -> RecordDataModule:
    """The data of a config; it differs in nothing else from one model of a task to the next."""
    return build.datamodule(cfg)


class Seen(lightning.Callback):
    """The loss of a step and its gradients before they are clipped."""

    loss: float
    gradient: Mapping[str, Tensor | None]

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, *rest: Any) -> None:
        self.loss = float(outputs["loss"])

    def on_before_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
        self.gradient = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}


@dataclass(frozen=True, eq=False)
class Case:
    """A model after one step of training, with noise on all its weights, so that none is 0 and does nothing.

    Attributes:
        cfg: It was built from.
        data: It was trained on.
        model: In evaluation mode.
        seen: What the step saw.
    """

    cfg: DictConfig
    data: RecordDataModule
    model: Model
    seen: Seen

    @property
    def batch(self) -> Batch:
        """Of the test part."""
        found: Batch = next(iter(self.data.test_dataloader()))
        return found

    def answer(self, batch: Batch) -> Tensor:
        """Predictions [B, T]."""
        with torch.no_grad():
            return self.model.eval()(batch.blind())

    def assert_close(self, found: Tensor, expected: Tensor, what: str, share: float = 1e-4) -> None:
        """Equal but for rounding, in standard deviations of the outputs."""
        off = float(((found - expected) / self.data.spec.scale).abs().max())
        assert off < share, f"{what}: predictions differ by {off:.2g} standard deviations"


def trained(cfg: DictConfig, data: RecordDataModule) -> Case:
    """One step of training, which also fits what a model fits before its first."""
    torch.manual_seed(0)
    model, seen = built(cfg, data), Seen()
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[seen],
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    model.zero_grad()
    with torch.no_grad():
        draw = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
    return Case(cfg, data, model.eval(), seen)


def step(model: Model, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of a training step; the same draws each time."""
    torch.manual_seed(0)
    model.train().zero_grad()
    loss = model.training_step(batch, 0)
    loss.backward()
    return float(loss), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


# The contract -------------------------------------------------------------------------------------------


def every_parameter_gets_a_gradient(case: Case, tmp: Path) -> None:
    """In each step, for processes wait for it; and within four steps one that is not 0, if there is what to train."""
    without = [name for name, gradient in case.seen.gradient.items() if gradient is None]
    assert not without, f"parameters without a gradient: {without}"
    broken = [name for name, gradient in case.seen.gradient.items() if not torch.as_tensor(gradient).isfinite().all()]
    assert not broken, f"gradients that are no numbers: {broken}"
    dead = set() if case.model.is_prior_alone else set(case.seen.gradient)
    for batch in itertools.islice(case.data.train_dataloader(), 4):
        if not dead:
            return
        dead -= {name for name, gradient in step(case.model, batch)[1].items() if gradient.any()}
    assert not dead, f"parameters whose gradient is 0: {sorted(dead)}"


def a_batch_of_one_is_its_row_in_a_larger_one(case: Case, tmp: Path) -> None:
    batch = case.batch
    assert len(batch) > 1
    alone = torch.cat([case.answer(batch.narrow(i, i + 1)) for i in range(len(batch))])
    assert alone.shape == (len(batch), len(case.data.spec.outputs))
    case.assert_close(alone, case.answer(batch), "a batch of one")


def the_order_of_members_changes_nothing(case: Case, tmp: Path) -> None:
    """Of genes that are perturbed together; a sample of other tasks has no members."""
    every: Any = case.data.packed[torch.arange(len(case.data.packed))]
    if not hasattr(every, "ptr"):
        return
    several = (every.ptr.diff() > 1).nonzero()[:6, 0]
    batch: Any = case.data.packed[several]
    assert len(batch), "no sample has several members"
    bounds = zip(batch.ptr[:-1].tolist(), batch.ptr[1:].tolist(), strict=True)
    turned = torch.cat([torch.arange(start, stop).flip(0) for start, stop in bounds])
    of_members = {one.name for one in fields(batch)} & {"gene", "kind", "level"}
    other = replace(batch, **{name: getattr(batch, name)[turned] for name in of_members})
    case.assert_close(case.answer(other), case.answer(batch), "members in another order")


def a_checkpoint_gives_the_same_predictions(case: Case, tmp: Path) -> None:
    """It is read with ``weights_only=True`` and names no file."""
    spec, state = case.model.spec, case.model.state_dict()
    content = {checkpoint.KEY: checkpoint.describe(spec, case.cfg, case.data.prior), "state_dict": state, "epoch": 0}
    torch.save(content, tmp / "best.ckpt")
    mine = str(case.cfg.model._target_).partition(".")[0]
    torch.manual_seed(99)  # what is drawn when it is built is not what was drawn before
    again = checkpoint.load(tmp / "best.ckpt").model(trust=() if mine == "torchcell" else (mine,))
    assert torch.equal(replace(case, model=again).answer(case.batch), case.answer(case.batch))


def a_prediction_needs_no_target(case: Case, tmp: Path) -> None:
    """What was measured is in the batch of a test pass; to answer with it would be a perfect score."""
    batch = case.batch
    with torch.no_grad():
        expected = case.model.eval().predict_step(batch)[1]
        found = case.model.predict_step(replace(batch, target=torch.randn_like(batch.target)))[1]
        blind = case.model.predict_step(batch.blind())[1]
    assert expected.isfinite().all()
    assert torch.equal(found, expected)
    assert torch.equal(blind, expected)


def predictions_are_in_the_unit_of_the_target(case: Case, tmp: Path) -> None:
    """Data in another unit, the same weights, the same predictions in that unit; what yes or no means has none."""
    record = rescaled(case.data.record_whole, 4.0, 3.0)
    if record is None or not standardizes(case.cfg):
        return
    data = _of_record(case.cfg, record)
    other = trained(case.cfg, data)
    with torch.no_grad():
        for mine, theirs in zip(other.model.parameters(), case.model.parameters(), strict=True):
            mine.copy_(theirs)
    assert data.split.hash == case.data.split.hash
    case.assert_close((other.answer(other.batch) - 3.0) / 4.0, case.answer(case.batch), "another unit", 1e-2)


def bfloat16_is_finite_and_near(case: Case, tmp: Path) -> None:
    """``trainer.precision=bf16-mixed``."""
    batch = next(iter(case.data.train_dataloader()))
    loss, _ = step(case.model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        half, gradient = step(case.model, batch)
        predicted = case.answer(case.batch).float()
    assert np.isfinite(half)
    assert abs(half - loss) <= 0.1 * abs(loss), f"the loss is {half:.3g} in place of {loss:.3g}"
    broken = [name for name, one in gradient.items() if not one.isfinite().all() or one.dtype != torch.float32]
    assert not broken, f"gradients that are no numbers of 32 bits: {broken}"
    expected, spec = case.answer(case.batch), case.data.spec
    off, spread = ((predicted - expected) / spec.scale).square().mean().sqrt(), (expected / spec.scale).std()
    assert off < 0.01 + 0.2 * spread, f"predictions are off by {off:.2g} of {spread:.2g} standard deviations"


def memory_options_change_nothing(case: Case, tmp: Path) -> None:
    """Those that compute again what they did not keep; another attention is another model."""
    batch = next(iter(case.data.train_dataloader()))
    loss, gradient = step(case.model, batch)
    for key, plain in case.model.memory_options.items():
        if not isinstance(plain, bool):
            continue
        cfg = OmegaConf.create(OmegaConf.to_container(case.cfg))
        OmegaConf.update(cfg, f"model.{key}", not OmegaConf.select(cfg.model, key))
        model = built(cfg, case.data)
        model.load_state_dict(case.model.state_dict())
        model.trainer = case.model.trainer
        other, theirs = step(model, batch)
        assert np.isclose(loss, other, rtol=1e-5), key
        assert theirs.keys() == gradient.keys(), key
        for name, one in gradient.items():
            torch.testing.assert_close(theirs[name], one, rtol=1e-3, atol=1e-5, msg=f"{key}: {name}")


CONTRACT: Sequence[Callable[[Case, Path], None]] = (
    every_parameter_gets_a_gradient,
    a_batch_of_one_is_its_row_in_a_larger_one,
    the_order_of_members_changes_nothing,
    a_checkpoint_gives_the_same_predictions,
    a_prediction_needs_no_target,
    predictions_are_in_the_unit_of_the_target,
    bfloat16_is_finite_and_near,
    memory_options_change_nothing,
)

# Data in another unit -----------------------------------------------------------------------------------


def rescaled(record: Any, factor: float, shift: float) -> Any | None:
    """The same samples with all that is measured times ``factor`` plus ``shift``; None where the unit is fixed."""
    names = {Screen: ("phenotype", "replicates", "truth"), Response: ("treated", "control", "basal")}.get(type(record))
    if names is None or getattr(record, "task", "") == "binary":
        return None
    values = {name: getattr(record, name) for name in names}
    return replace(record, **{name: one if one is None else factor * one + shift for name, one in values.items()})


def standardizes(cfg: DictConfig) -> bool:
    """Whether the model of a config reads nothing in the unit of the data, as CheMoE does as published."""
    return OmegaConf.select(cfg, "model.inputs.basal") != "raw"


def _of_record(cfg: DictConfig, record: Any) -> RecordDataModule:
    data = OmegaConf.masked_copy(cfg.data, [key for key in cfg.data if key not in (*build.NOT_DATA, "record")])
    split, graph = OmegaConf.to_container(cfg.split, resolve=True), instantiate(cfg.graph) or None
    found: RecordDataModule = instantiate(data, _partial_=True)(record=record, graph=graph, split=split, seed=cfg.seed)
    return found
