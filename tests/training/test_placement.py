"""Which process is the first, from the environment of each launcher; what cannot be is refused with a way out."""

from __future__ import annotations

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from torchcell.io.errors import InputError
from torchcell.training.distributed.placement import Placement, placed, requested

TORCHRUN = {
    "RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node1",
    "MASTER_PORT": "2950", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "1",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "5", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NODELIST": "n[07-09]",
}  # fmt: skip


def trainer(**changes: object) -> DictConfig:
    return OmegaConf.create({"trainer": {"accelerator": "cpu", "devices": 1, **changes}})


def test_the_first_process_of_the_second_node_is_not_the_first():
    place = placed(TORCHRUN)
    assert place is not None
    assert (place.rank, place.world, place.local_rank, place.local_world) == (2, 4, 0, 2)
    assert (place.address, place.port, place.hosted, place.attempt) == ("node1", 2950, True, "1")
    place = placed({**SRUN, "SLURM_LOCALID": "0", "SLURM_PROCID": "2"})
    assert place is not None
    assert (place.rank, place.local_rank) == (2, 0)


def test_a_step_of_srun_knows_its_nodes_and_a_port_of_its_own():
    place = placed(SRUN)
    assert place is not None
    assert (place.rank, place.world, place.local_rank, place.local_world) == (3, 5, 1, 2)
    assert place.address == "n07"
    assert 10_000 <= place.port < 32_768, "below the ports that Linux hands out"
    ports = {placed({**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(s)}).port for job in (1, 2) for s in (0, 1)}  # type: ignore[union-attr]
    assert len(ports) == 4
    last = placed({**SRUN, "SLURM_NODEID": "2"})
    assert last is not None
    assert last.local_world == 1


def test_torchrun_within_a_job_counts_more_than_the_job():
    place = placed(SRUN | TORCHRUN)
    assert place is not None
    assert (place.rank, place.world) == (2, 4)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},  # script of a batch job
        {
            "SLURM_JOB_ID": "1",
            "SLURM_PROCID": "0",
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": "1",
        },  # srun --pty bash
    ],
)
def test_a_process_that_no_launcher_has_multiplied_is_alone(environment):
    assert placed(environment) is None


def test_another_number_of_processes_than_the_config_asks_for_is_refused():
    place = placed(TORCHRUN)
    with pytest.raises(InputError, match="4 processes were started, but trainer.devices=1 on 1 node"):
        requested(trainer(), place)
    assert requested(trainer(devices=2, num_nodes=2), place) == (torch.device("cpu"), -1)
    assert requested(trainer(devices=-1, num_nodes=7), place) == (torch.device("cpu"), -1)
    with pytest.raises(InputError, match="put srun .* or torchrun before the command"):
        requested(trainer(devices=2, num_nodes=2), None)


@pytest.mark.parametrize(("visible", "index"), [(2, 1), (1, 0), (8, 1)])
def test_a_process_takes_its_own_gpu_also_where_slurm_shows_it_only_that_one(monkeypatch, visible, index):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    device, _ = requested(trainer(accelerator="gpu", devices=-1), placed(SRUN))
    assert device == torch.device("cuda", index)


def test_gpus_that_the_config_lists_are_dealt_in_its_order(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    cfg = trainer(accelerator="gpu", devices=[3, 1])
    place = Placement(1, 2, 1, 2, "127.0.0.1", 1)
    assert requested(cfg, None) == (torch.device("cuda", 3), 2)
    assert requested(cfg, place)[0] == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"trainer.devices=\[7\]"):
        requested(trainer(accelerator="gpu", devices=[7]), None)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    many = {**SRUN, "SLURM_LOCALID": "2", "SLURM_STEP_TASKS_PER_NODE": "3,2", "SLURM_NODEID": "0"}
    with pytest.raises(InputError, match=r"3 process\(es\) on a node where 2 GPUs are visible"):
        requested(trainer(accelerator="gpu", devices=-1), placed(many))
