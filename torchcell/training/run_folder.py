"""The run's folder: one for a config and seed, also under DDP, requeue and array jobs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from torchcell.io.cache import atomic_write, write_json
from torchcell.io.errors import InputError, some
from torchcell.io.paths import refuse_links
from torchcell.io.plain_config import read_plain
from torchcell.io.run_files import read_rows
from torchcell.training.lock import NAME as LOCK
from torchcell.training.lock import FolderLock, refuse_locked

NOT_HASHED = ("paths", "logger", "ckpt_path", "overwrite", "seed", "data.verify")
"""Keys that change where or how often a run happens, not what it computes (the seed is in the name)."""
PRUNED = "pruned.json"
"""In the folder of a run that a search stopped before its end."""
NEAR = 3
"""Keys in which two configs may differ to be called near."""


def config_hash(cfg: DictConfig) -> str:
    """sha256 of the composed config as text, interpolations unresolved, so that it is the same everywhere."""
    return hashlib.sha256(json.dumps(_hashed(cfg), sort_keys=True).encode()).hexdigest()


def _hashed(cfg: Any) -> dict[Any, Any]:
    """What of a config makes another run."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    for key in NOT_HASHED:
        *groups, last = key.split(".")
        node: Any = plain
        for group in groups:
            node = node.get(group, {})
        node.pop(last, None)
    if plain.get("data_changed") == "error":  # allow is another run, which a run on its own data must not replace
        del plain["data_changed"]
    return plain


def saved_config(run: Path) -> DictConfig:
    """The config of a run's folder, which may be a stranger's: plain values, nothing of which is called."""
    return OmegaConf.create(read_plain(run / "config.yaml"))


def run_path(cfg: DictConfig) -> Path:
    """The folder of the run that ``cfg`` describes."""
    # A `/` or `..`, in the seed too, would lead out of the folder.
    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{config_hash(cfg)[:8]}-s{cfg.seed}")
    experiment = re.sub(r"[^A-Za-z0-9._-]|^\.+", "-", str(cfg.name)) or "-"
    return Path(cfg.paths.runs) / experiment / name


def finished_score(cfg: DictConfig) -> float | None:
    """Best validation score of the run of ``cfg`` where ``ckpt_path=auto`` finds it finished; otherwise none."""
    path = run_path(cfg)
    if cfg.ckpt_path != "auto" or not (path / "report.html").is_file():  # the report is written last
        return None
    return float(read_rows(path / "history.csv")["val/score"].max())


def refuse_running(cfg: DictConfig) -> None:
    """Refuse the run of ``cfg`` where another process is at it, in the seconds before torch is loaded.

    Only the first of several processes can tell: the others find the folder held by it.
    """
    if all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "SLURM_PROCID")):
        refuse_locked(run_path(cfg))


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; see docs/concepts/contracts.md, A run.

    Attributes:
        path: ``runs/<experiment>/<first 8 of the config's sha256>-s<seed>``.
        resume: The checkpoint to go on from, or none.
        lock: Held by the first process until ``close``; none in the others.
    """

    path: Path
    resume: Path | None
    lock: FolderLock | None = None

    @classmethod
    def open(cls, cfg: DictConfig, first: bool = True) -> RunFolder:
        """Make the folder and hold it, or refuse if the same config has run there already or runs there now.

        Args:
            cfg: The composed config.
            first: Whether this is the first process; the others find the folder as it has left it.

        Raises:
            InputError: The folder is or holds a link that leads elsewhere. It is held by a living run, whatever the
                config says. It holds a run that has ended,
                and neither ``ckpt_path=last``, ``overwrite=true`` nor a requeued job says what to do with it. It can't
                be written.
        """
        path = run_path(cfg)
        refuse_links(path, named=False)  # else others' files would be overwritten, or deleted by overwrite=true
        last = path / "checkpoints" / "last.ckpt"
        if not first:
            return cls(path, cls._resume(cfg, last))
        lock = FolderLock(path)
        try:
            resume = cls._resume(cfg, last)
            held = any(file.exists() for file in (last, path / "metrics.json"))
            if held and resume is None and not _requeued() and not cfg.overwrite:
                raise InputError(
                    f"{path} already holds a run of this config and seed; go on with ckpt_path=last, "
                    "start anew with overwrite=true, or choose another seed"
                )
            (path / "checkpoints").mkdir(exist_ok=True)
            for rest in path.rglob(".*.part*"):  # what a killed process was writing
                rest.unlink(missing_ok=True)
        except BaseException:
            lock.release()
            raise
        return cls(path, resume, lock)

    def close(self) -> None:
        """Let others write; a folder in which nothing was written goes away."""
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _resume(cfg: DictConfig, last: Path) -> Path | None:
        if cfg.overwrite and cfg.ckpt_path is not None:
            raise InputError("overwrite=true throws the run away that ckpt_path goes on with; give one of the two")
        if cfg.ckpt_path in ("last", "auto") or _requeued():
            if last.is_file():
                return last
            if cfg.ckpt_path == "last":
                raise InputError(f"ckpt_path=last, but there is no {last}; {_nearest_run(cfg)}")
            return None
        if cfg.ckpt_path is None:
            return None
        if not Path(cfg.ckpt_path).is_file():
            raise InputError(f"ckpt_path={cfg.ckpt_path}: no such file; to go on with this run use ckpt_path=last")
        return Path(cfg.ckpt_path)

    @property
    def last(self) -> Path:
        """Checkpoint that the run goes on from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """Checkpoint of the best validation score."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def goes_elsewhere(self) -> bool:
        """Whether it goes on from another run's checkpoint, in its own folder."""
        return self.resume is not None and self.resume.resolve() != self.last.resolve()

    def check_trained(self) -> None:
        """Refuse to score a run that had its training behind it when it began: early stopping had ended it.

        Raises:
            InputError: What to set.
        """
        if not self.best.is_file() and self.goes_elsewhere:
            raise InputError(
                f"{self.resume} was saved when early stopping had ended its run, and nothing was trained; raise "
                f"trainer.early_stopping.patience to go on, or start anew from its weights by init_from={self.resume}"
            )

    @contextmanager
    def gone_unless_trained(self) -> Iterator[None]:
        """Leave nothing of a run that fails within the block before its first epoch or checkpoint."""
        try:
            yield
        except BaseException:
            kept = (self.last, self.path / "history.csv", self.path / "metrics.json")
            if self.lock is not None and not any(file.is_file() for file in kept):
                _clear(self.path)
            raise

    def write_pruned(self, epoch: int, score: float) -> None:
        """Say in ``pruned.json`` that a search stopped this run; ``ckpt_path=last`` outside the search goes on with it.

        Args:
            epoch: The last that was trained.
            score: Best ``val/score`` until then.
        """
        write_json(self.path / PRUNED, {"pruned_after_epoch": epoch, "val/score": score})

    def write_start(self, cfg: DictConfig, facts: Mapping[str, Any], first: bool = True) -> dict[str, Any]:
        """Write ``config.yaml`` and ``environment.json``, once it is known that the run can start.

        Only then does ``overwrite=true`` throw away what was there: a start that fails must cost nothing. When a run
        goes on it keeps its wandb id, and that its data changed, if they did.

        Args:
            cfg: The composed config.
            facts: What else ``environment.json`` holds, e.g. the fingerprint of the data.
            first: Whether this is the process that writes.
        """
        if first and cfg.overwrite and self.resume is None:
            _clear(self.path)
            (self.path / "checkpoints").mkdir()
        known = self.path / "environment.json"
        earlier = json.loads(known.read_text()) if known.is_file() else {}
        kept = {name: earlier[name] for name in ("wandb_id", "data_changed") if name in earlier}
        named = {"wandb_id": uuid.uuid4().hex[:12], "config_hash": config_hash(cfg)}
        environment = environment_facts() | named | dict(facts) | kept
        if first:
            (self.path / PRUNED).unlink(missing_ok=True)  # it goes on
            write_json(known, environment)
            with atomic_write(self.path / "config.yaml") as temporary:
                OmegaConf.save(cfg, temporary)
        return environment


def _nearest_run(cfg: DictConfig) -> str:
    """What to do where this config has no run to go on with: the run of this name that differs in the fewest keys."""
    path = run_path(cfg)
    runs = [run for run in sorted(path.parent.glob(f"*-s{cfg.seed}")) if (run / "checkpoints" / "last.ckpt").is_file()]
    found = [(_differing(run / "config.yaml", cfg), run) for run in runs]
    found = [(differing, run) for differing, run in found if 0 < len(differing) <= NEAR]
    if not found:
        return "run without it to start"
    differing, run = min(found, key=lambda one: len(one[0]))
    return (
        f"a run is known by its config, and the nearest one there is, {run}, differs in {some(differing, 3)}: go on "
        f"from it with ckpt_path={run}/checkpoints/last.ckpt, in a folder of its own"
    )


def _differing(saved: Path, cfg: DictConfig) -> list[str]:
    """Keys in which a saved config and this one differ, with both values, of those that make another run."""
    if not saved.is_file():
        return []
    old, new = (_flat(_hashed(OmegaConf.create(OmegaConf.to_yaml(one)))) for one in (saved_config(saved.parent), cfg))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} (there {old.get(key)}, here {new.get(key)})" for key in keys]


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix.removesuffix("."): node}
    return {key: value for name, part in node.items() for key, value in _flat(part, f"{prefix}{name}.").items()}


def _clear(folder: Path) -> None:
    """Delete all that is in a folder but its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def environment_facts() -> dict[str, Any]:
    """Git commit and dirty flag of the code, versions, device; processor, threads and BLAS."""
    import importlib.metadata as metadata

    import torch

    from torchcell.training.environment import compute_facts

    packages = ("torchcell", "torch", "lightning", "torch-geometric", "hydra-core", "numpy", "anndata")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "device": device,
        "cpus": os.cpu_count(),
        "host": platform.node(),
        **compute_facts(),
    }


def _git(*arguments: str) -> str:
    """The answer of git in the code's folder; empty where the package is installed without git."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _requeued() -> bool:
    """Whether SLURM has started this job before: it goes on with what it has, and overwrites nothing."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
