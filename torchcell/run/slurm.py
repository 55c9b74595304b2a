"""The SLURM job that a run is part of: its id, its state, and putting it back into the queue."""

from __future__ import annotations

import os
import re
import subprocess


def job_id() -> str | None:
    """The job's id, of an array's task as ``<array>_<task>``; None outside SLURM, and where the job is not this run's.

    A sweep's agent runs many in one job and ends those that it stops early by SIGTERM. ``SLURM_JOB_ID`` of an array's
    last task is that of the whole array: requeued by it, all tasks would start anew.
    """
    if os.environ.get("WANDB_SWEEP_ID"):
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def requeue(job: str) -> str:
    """Put a running job back into its queue; it starts again with the same script and in the same folder.

    A job that was cancelled, is out of time or preempted is no longer running, and is left alone: ``scontrol requeue``
    would bring back even what its user has just cancelled.

    Returns:
        Nothing where it worked; otherwise why not.
    """
    try:
        state = re.search(r"JobState=(\w+)", _scontrol("-o", "show", "job", job))
        if state is None or state[1] != "RUNNING":
            found = "unknown to SLURM" if state is None else f"{state[1].lower()} (cancelled, out of time or preempted)"
            return f"the job is {found}"
        _scontrol("requeue", job)
    except subprocess.CalledProcessError as error:
        return " ".join(str(error.stderr).split())
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


def _scontrol(*arguments: str) -> str:
    done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout
