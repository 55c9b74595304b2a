"""What is timed is the training step, on each process's share of the samples."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from tests.training.refusal import refuse
from torchcell.io.errors import InputError
from torchcell.training import build as assemble
from torchcell.training.distributed import placement
from torchcell.training.distributed.processes import DistributedContext, run_in_processes
from torchcell.training.entry import conf_dir
from torchcell.training.profile import PHASES, Objective, PeakMemory, Plan, Subject, measure

SMALL = (
    "data.record.n_genes=120",
    "data.record.n_sets=400",
    "data.record.n_queries=16",
    "data.record.n_arrays=60",
    "data.batch_size=64",
    "model.encoder.dim=16",
    "model.readout.heads=1",
)
CELL_SETS = (
    "+experiment=simulated_perturbseq",
    "data.record.n_genes=60",
    "data.record.n_regulators=16",
    "data.record.n_doubles=0",
    "model.distribution=true",
)
CPU = DistributedContext(torch.device("cpu"))


def config(*overrides: str, small: tuple[str, ...] = SMALL) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("profile", [*small, *overrides])


@pytest.fixture(scope="module")
def subject() -> Subject:
    cfg = config()
    return Subject(cfg, assemble.datamodule(cfg), CPU)


def test_what_is_differentiated_is_the_loss_of_the_training_step(subject):
    batch = next(subject.batches())
    torch.testing.assert_close(subject.objective(batch), subject.model.training_step(batch, 0))


def test_weights_that_follow_a_schedule_are_those_of_the_first_epoch(subject, monkeypatch):
    def schedule(epoch: int, max_epochs: int) -> dict[str, float]:
        return {"phenotype": float(epoch), "reconstruction": float(max_epochs)}

    monkeypatch.setattr(subject.model, "loss_weights", schedule)
    assert Objective(subject.model, 7).weights == {"phenotype": 0.0, "reconstruction": 7.0}


def test_only_the_full_step_moves_the_weights(subject):
    batch = next(subject.batches())
    before = subject.model.embedding.weight.detach().clone()
    for phase in PHASES:
        assert torch.equal(subject.model.embedding.weight, before), "moved before the full step"
        subject.work(phase, batch)
        assert subject.model.embedding.weight.grad is None, "gradients of one step must not reach the next"
    assert not torch.equal(subject.model.embedding.weight, before)


def test_batches_go_on_into_a_new_epoch_in_another_order(subject):
    n_batches, batches = len(subject.loader), subject.batches()
    first, second = ([next(batches).sample for _ in range(n_batches)] for _ in range(2))
    assert torch.equal(torch.cat(first).sort().values, torch.cat(second).sort().values)
    assert not torch.equal(torch.cat(first), torch.cat(second))


def test_batches_of_a_screen_are_those_that_are_trained_on():
    cfg = config()
    data = assemble.datamodule(cfg)
    known, ours = iter(data.train_dataloader()), Subject(cfg, data, CPU).batches()
    for _ in range(3):
        expected, batch = next(known), next(ours)
        assert torch.equal(batch.sample, expected.sample)
        assert torch.equal(batch.gene, expected.gene)


def test_sets_of_cells_are_profiled_as_they_are_trained():
    """Batches to be predicted were profiled once: eight times the control cells, and no perturbed ones at all."""
    cfg = config(small=CELL_SETS)
    data = assemble.datamodule(cfg)
    known, subject = data.train_dataloader(), Subject(cfg, data, CPU)
    expected, batch = next(iter(known)), next(subject.batches())
    assert len(subject.loader.sampler) == len(known.sampler) > len(data.split.index("train"))
    assert batch.input_cells.shape == expected.input_cells.shape == (8, 4, 60)
    assert batch.perturbed.shape == expected.perturbed.shape == (8, 16, 60)
    assert torch.isfinite(subject.objective(batch)), "the distance to no cells"


def test_a_phase_takes_fewer_steps_rather_than_longer_than_allowed(subject):
    assert measure(subject, "loader", Plan(steps=3, warmup=2), CPU)["steps"] == 3
    assert measure(subject, "full step", Plan(steps=50, warmup=5, max_seconds=1e-6), CPU)["steps"] == 1


def test_a_plan_without_steps_is_refused():
    with pytest.raises(InputError, match="at least 1 step"):
        Plan(steps=0)
    with pytest.raises(InputError, match="warm-up"):
        Plan(warmup=0)


def test_peak_memory_sees_what_a_block_holds():
    with PeakMemory(torch.device("cpu")) as memory:
        held = torch.ones(25_000_000)
    assert 90 < memory.megabytes < 200, held.shape


def test_a_precision_that_is_not_known_is_named():
    cfg = config("trainer.precision=64-true")
    with pytest.raises(InputError, match="64-true.*bf16-mixed"):
        Subject(cfg, assemble.datamodule(cfg), CPU)


def test_a_missing_device_is_an_error_that_says_what_to_do():
    with pytest.raises(InputError, match="choose one of"):
        run_in_processes(share, OmegaConf.merge(config(), {"trainer": {"accelerator": "tpu"}}))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU is visible; use trainer=cpu"):
            run_in_processes(share, config("trainer=gpu"))


def test_mps_is_checked_here_too_and_is_one_device(monkeypatch):
    with pytest.raises(InputError, match="finds no MPS device|MPS is refused"):
        run_in_processes(share, OmegaConf.merge(config(), {"trainer": {"accelerator": "mps"}}))
    monkeypatch.setattr(placement, "check_accelerator", lambda name: name)
    with pytest.raises(InputError, match="one MPS device"):
        run_in_processes(share, OmegaConf.merge(config(), {"trainer": {"accelerator": "mps", "devices": 2}}))
    one = OmegaConf.merge(config(), {"trainer": {"accelerator": "mps"}})
    assert run_in_processes(lambda cfg, process: process.device.type, one) == "mps"


def share(cfg: DictConfig, process: DistributedContext) -> dict[str, list]:
    """Forward and backward on the first batch; samples of all processes and the gradients they agreed on."""
    subject = Subject(cfg, assemble.datamodule(cfg), process, cfg.profile.batch_size)
    subject.loader.sampler.shuffle = False
    batch = next(subject.batches())
    subject.objective(batch).backward()
    gradient = subject.model.embedding.weight.grad[:20].flatten()
    return {
        "sample": process.gather(*batch.sample.tolist()).tolist(),
        "gradient": process.gather(*gradient.tolist()).tolist(),
    }


@pytest.mark.long
def test_two_processes_take_different_samples_and_the_same_step():
    """The averaged gradients of two shares are those of one process on both."""
    several = run_in_processes(share, config("trainer=ddp_cpu", "model.embedding.decay=0.0"))
    first, second = several["sample"]
    assert not set(first) & set(second)
    assert several["gradient"][0] == several["gradient"][1]
    assert any(several["gradient"][0])
    alone = run_in_processes(share, config("profile.batch_size=128", "model.embedding.decay=0.0"))
    assert sorted(alone["sample"][0]) == sorted(first + second)
    assert alone["gradient"][0] == pytest.approx(several["gradient"][0], rel=1e-3, abs=1e-7)


@pytest.mark.long
def test_bad_input_in_any_process_ends_all_and_keeps_its_words():
    with pytest.raises(InputError, match=r"process 1 of 2 failed: the second process has no data; bring some$"):
        run_in_processes(refuse, config("trainer=ddp_cpu"))
