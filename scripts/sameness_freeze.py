"""The half of ``sameness.py`` that stores what a checkout computes; each part is made in processes of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sameness_set import MANIFEST, IncompleteSet, renamed

SHORT = (
    "seed=0",
    "trainer.max_epochs=2",
    "trainer.warmup_steps=2",
    "evaluation.n_boot=50",
    "evaluation.umap=false",
    "evaluation.memory_step_s=null",  # a measurement of time
    "logger=csv",
)
"""What every run is given."""
SIMULATED = (
    "cgt",
    "chemoe",
    "dango",
    "gnn_index",
    "gnn_khop1",
    "gnn_khop2",
    "gnn_khop3",
    "gnn_lazy",
    "hgt",
    "perturbseq",
)
RUNS: dict[str, tuple[str, ...]] = {
    **{f"simulated_{name}": () for name in SIMULATED},
    "costanzo2010_dango": ("data.subset=20000",),
    "costanzo2010_cgt": ("data.subset=5000",),
    "kuzmin2018_dango": ("data.subset=20000",),
    "hetionet_hgt": ("data.record.limit_nodes=4000",),
    "l1000_chemoe": (),
    "papalexi2021_set": ("data.max_cells=4000",),
}
"""Experiment -> what shortens it; each takes about a minute of one core."""
PARTS = (*RUNS, "configs", "tests")
TABLES = ("split.parquet", "metrics.json", "metrics.csv", "comparisons.csv")
"""Files of a run that are kept beside its predictions; the first three must be there."""


@dataclass(frozen=True)
class Job:
    """One part to be made.

    Attributes:
        root: The checkout whose code runs.
        out: Where the part's files go.
        work: An empty folder to run in.
        environment: Of the processes.
        timeout: Seconds that the part may take.
        rename: Old name -> name in this checkout, for overrides.
    """

    root: Path
    out: Path
    work: Path
    environment: Mapping[str, str]
    timeout: float
    rename: Mapping[str, str]

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """Run Python on ``command`` and give back what it printed; its error stream goes to ``log.txt``.

        Raises:
            subprocess.SubprocessError: It failed, or took too long.
        """
        with (self.out / "log.txt").open("a") as log:
            ended = subprocess.run(
                [sys.executable, *command],
                cwd=cwd or self.work,
                env=dict(self.environment),
                timeout=self.timeout,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=False,
            )
            log.write(ended.stdout)
        ended.check_returncode()
        return ended.stdout


def freeze(out: Path, root: Path, parts: Sequence[str], timeout: float, rename: Mapping[str, str]) -> int:
    """Store what the code of a checkout computes. One part that fails is recorded, and the others go on.

    Args:
        out: Folder of the set; parts that it holds of the same code are left as they are.
        root: The checkout.
        parts: Names of ``RUNS``, ``configs``, ``tests``, ``bench``.
        timeout: Seconds that one part may take.
        rename: Old name -> name in this checkout.

    Returns:
        0 if all parts are there, else 1.

    Raises:
        IncompleteSet: ``out`` holds a set of other code, or ``root`` is no checkout.
    """
    out, root = out.resolve(), root.resolve()
    work, cache = out / "work", out / "cache"
    environment = _environment(root, cache)
    content = _manifest(out, root)
    content["planned"] = list(PARTS)
    models: set[str] = {part["model"] for part in content["parts"].values() if part.get("file")}
    try:
        for number, name in enumerate(parts, 1):
            if content["parts"].get(name, {}).get("status") == "done":
                continue
            print(f"{number}/{len(parts)} {name} ...", flush=True)
            for folder in (out / name, work):
                shutil.rmtree(folder, ignore_errors=True)  # what a killed one has left
                folder.mkdir(parents=True)
            started = time.monotonic()
            job = Job(root, out / name, work, environment, timeout, rename)
            found = _made(name, job, models)
            shutil.rmtree(work)
            seconds = time.monotonic() - started
            content["parts"][name] = {"status": "done", "seconds": round(seconds, 1), **found}
            if "error" in found:
                content["parts"][name]["status"] = "failed"
                print(f"  FAILED after {seconds:.0f} s: {found['error']} (see {out / name / 'log.txt'})", flush=True)
            else:
                print(f"  done in {seconds:.0f} s", flush=True)
            _write_json(out / MANIFEST, content)
    finally:
        for folder in (work, cache):
            shutil.rmtree(folder, ignore_errors=True)
    failed = [name for name, part in content["parts"].items() if part["status"] != "done"]
    print(f"{out}: {len(content['parts'])} parts" + (f", FAILED: {', '.join(failed)}" if failed else ", none failed"))
    return int(bool(failed))


def _made(name: str, job: Job, models: set[str]) -> dict[str, Any]:
    """Make one part: what the manifest holds of it, with ``error`` if it failed."""
    makers: dict[str, Callable[[Job], dict[str, Any]]] = {"configs": _configs, "tests": _tests, "bench": _bench}
    try:
        found = makers[name](job) if name in makers else _run(name, job, models)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        return {"error": _why(error, job.out / "log.txt")}
    return found | {"files": sorted(file.name for file in job.out.iterdir() if file.name != "log.txt")}


def _why(error: Exception, log: Path) -> str:
    """What a failed process said in its line ``error: ...``, or last; what Python says of any other failure."""
    if not isinstance(error, subprocess.CalledProcessError):
        return " ".join(str(error).split())[-200:]
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error:")), lines[-1] if lines else str(error))


def _run(experiment: str, job: Job, models: set[str]) -> dict[str, Any]:
    """Train one experiment; keep split, predictions, metrics, tensor hashes, and the checkpoint if the model is new."""
    given = [renamed(text, job.rename) for text in (*SHORT, *RUNS[experiment])]
    job.call("-m", "torchcell.train", f"+experiment={experiment}", *given, f"paths.runs={job.work / 'runs'}")
    (metrics,) = (job.work / "runs").rglob("metrics.json")
    run = metrics.parent
    predictions = [file for file in run.iterdir() if re.fullmatch(r"(predictions|ranks).*\.(parquet|h5ad)", file.name)]
    tables = [run / name for name in TABLES if name in TABLES[:3] or (run / name).is_file()]
    for file in (*tables, *predictions):
        shutil.copyfile(file, job.out / file.name)
    if not predictions:
        raise ValueError("the run wrote no predictions")
    checkpoint = run / "checkpoints" / "best.ckpt"
    _write_json(job.out / "weights.json", tensor_hashes(checkpoint))
    model = str(json.loads(metrics.read_text())["model"])
    if model not in models:
        models.add(model)
        shutil.copyfile(checkpoint, job.out / "best.ckpt")
        return {"model": model, "file": True}
    return {"model": model}


def tensor_hashes(checkpoint: Path) -> dict[str, str]:
    """Name -> sha256 of type, shape and bytes of each tensor of the model in a checkpoint."""
    import torch

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    found = {}
    for name, tensor in state.items():
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        found[name] = digest.hexdigest()
    return found


def _configs(job: Job) -> dict[str, Any]:
    """``--cfg job`` of every experiment."""
    import yaml

    page, folder = job.root / "conf" / "experiment.yaml", job.root / "conf" / "experiment"
    names = yaml.safe_load(page.read_text()) if page.is_file() else [file.stem for file in folder.glob("*.yaml")]
    if not names:
        raise ValueError(f"{job.root} has no experiments in its conf")
    for name in sorted(names):
        text = job.call("-m", "torchcell.train", f"+experiment={name}", "--cfg", "job")
        (job.out / f"{name}.yaml").write_text(text)
    return {}


def _tests(job: Job) -> dict[str, Any]:
    """The ids of all tests."""
    options = ("--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider")
    text = job.call("-m", "pytest", *options, cwd=job.root)
    (job.out / "ids.txt").write_text("\n".join(sorted(line for line in text.splitlines() if "::" in line)) + "\n")
    return {}


BENCH = """
import dataclasses, importlib, json, sys
from pathlib import Path
sys.path.insert(0, "scripts/bench")
import torch
torch.set_num_threads(1)
name, out = sys.argv[1:]
found = [dataclasses.asdict(row) for row in importlib.import_module(name).run()] if name != "run" else \
    list(importlib.import_module(name).BENCHES)
Path(out).write_text(json.dumps(found))
"""
"""Writes the rows of one bench, or of ``run`` the names of all."""


def _bench(job: Job) -> dict[str, Any]:
    """The table of ``make bench``, each bench in a process of its own as there."""
    file, rows = job.work / "rows.json", []
    job.call("-c", BENCH, "run", str(file), cwd=job.root)
    for name in json.loads(file.read_text()):
        print(f"  bench {name} ...", flush=True)
        job.call("-c", BENCH, name, str(file), cwd=job.root)
        rows += json.loads(file.read_text())
    _write_json(job.out / "targets.json", rows)
    return {}


def _environment(root: Path, cache: Path) -> dict[str, str]:
    """The environment of the processes: the code of ``root``, one thread, no cache of other code, nothing online.

    Raises:
        IncompleteSet: Python would import another torchcell.
    """
    found = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "SLURM_"))}
    found |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    found |= {
        "PYTHONPATH": str(root),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TORCHCELL_DATA": str(cache),
    }
    found |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    mirror = os.environ.get("TORCHCELL_MIRROR", str(root.parent / "shared" / "data"))
    found["TORCHCELL_MIRROR"] = str(Path(mirror).resolve())
    command = [sys.executable, "-c", "import torchcell; print(torchcell.__file__)"]
    said = subprocess.run(command, env=found, cwd=root, capture_output=True, text=True, check=False)
    if said.returncode or not Path(said.stdout.strip()).is_relative_to(root):
        raise IncompleteSet(
            f"{root} is no checkout of torchcell: {sys.executable} imports {said.stdout.strip() or 'none'}"
        )
    return found


def _manifest(out: Path, root: Path) -> dict[str, Any]:
    """What is known of the set in ``out``, or the head of a new one."""
    digest = hashlib.sha256()
    for folder in ("torchcell", "conf", "tests", "scripts/bench"):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix in (".py", ".yaml"):
                digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    code = digest.hexdigest()
    if (out / MANIFEST).is_file():
        known: dict[str, Any] = json.loads((out / MANIFEST).read_text())
        if known["code"] != code:
            raise IncompleteSet(f"{out} holds a set of other code ({known['commit'][:12]}); choose another folder")
        return known
    if out.exists() and any(out.iterdir()):
        raise IncompleteSet(f"{out} holds other files; choose another folder")
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {"commit": commit, "code": code, "python": sys.version.split()[0], "parts": {}}


def _write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
