"""Judge predictions that were made elsewhere: the same baselines, split, checks, verdict and page as for a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf

from torchcell.core.datamodule import RecordDataModule, derangement
from torchcell.core.foreign import ForeignColumns, matched
from torchcell.evaluation.checks import MEASURED, Check
from torchcell.evaluation.results import NETWORK_ALONE
from torchcell.io.errors import InputError, readable, some
from torchcell.io.in_memory import InMemory
from torchcell.training.predict import ENOUGH, SHUFFLES

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from torchcell.training.score import Scored


SAME = 1e-4
"""Share of the variance of measured changes up to which predictions are taken for a copy of them."""
UNRANKED = (
    "every pair of nodes is ranked, which no file of predictions holds; write the model as one of torchcell's "
    "(python -m torchcell.new NAME)"
)


@dataclass(frozen=True)
class Judgment:
    """What to judge.

    Attributes:
        predictions: The file, or a DataFrame or AnnData as ``InMemory``.
        how: How it is read.
        name: What the system is called in the table.
        out: Folder for tables and page; none: ``RUNS/BENCHMARK/judged-NAME-<hash of the split>``.
        benchmark: Name of the data in ``collect``; none: that of the config.
    """

    predictions: str | Path | InMemory
    how: ForeignColumns
    name: str = "predictions"
    out: Path | None = None
    benchmark: str | None = None


def judge(cfg: DictConfig, wanted: Judgment) -> tuple[Scored, Path]:
    """Score predictions on the part that ``cfg`` chooses, beside its baselines, and write the folder of results.

    Args:
        cfg: As for a training run; its model is not used.
        wanted: What to judge.

    Returns:
        The outcome, and the folder.

    Raises:
        InputError: Data whose predictions can't be given as a file; a file that can't be read or matched.
    """
    from torchcell.io.paths import refuse_unwritable
    from torchcell.training import build, score, write
    from torchcell.training.lock import FolderLock
    from torchcell.training.run_folder import environment_facts

    started = time.perf_counter()
    if not wanted.name or wanted.name != readable(wanted.name):
        raise InputError(f"name={wanted.name!r}: must be a text that can be shown")
    if wanted.name in (taken := {*cfg.baselines, "replicate_ceiling", NETWORK_ALONE}):
        raise InputError(
            f"name={wanted.name}: {some(sorted(taken), len(taken))} are systems of the table; choose another"
        )
    if wanted.out is not None:
        refuse_unwritable(wanted.out, "out")
    saved = _without_model(cfg, wanted)
    datamodule = build.datamodule(cfg)
    place = Path(cfg.paths.runs) / saved["name"] / f"judged-{_plain(wanted.name)}-{datamodule.split.hash[:8]}"
    folder = wanted.out or place
    how = score.scoring_of(cfg)
    predicted, notes = _predictions(datamodule, wanted, how.part)
    system = score.UnderTest(
        wanted.name,
        dict.fromkeys(datamodule.evaluation_inputs(how.part), predicted),
        _exchanged(datamodule, predicted, how.part, how.seed),
        checks=_copied(datamodule, predicted, how.part),
        remarks=("predictions of others: training not seen",),
    )
    scored = score.judged(system, datamodule, cfg.baselines, how)
    info = build.report_info(cfg, environment_facts(), datamodule, {"predictions": str(wanted.predictions)})
    info["notes"] = [*info["notes"], *notes]
    with FolderLock(folder):
        OmegaConf.save(saved, folder / "config.yaml")  # so that collect finds it
        datamodule.write(folder)
        scored = write.write(scored, folder, info, None, {"foreign": True})
    for note in notes:
        print(readable(f"note: {note}"))
    write.say(scored, started)
    return scored, folder


def export(cfg: DictConfig, folder: Path, name: str) -> list[Path]:
    """Write the data with the split that a run of ``cfg`` would have, for other programs; returns the files.

    Args:
        cfg: As for a training run; its model is not used.
        folder: A new or empty folder.
        name: Of the data, for formats that name it.

    Raises:
        InputError: A folder with files in it; data that no file of predictions can be given for.
    """
    from torchcell.io.paths import refuse_unwritable
    from torchcell.training import build

    refuse_unwritable(folder, "out")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"out={folder} holds files; name a new folder")
    datamodule = build.datamodule(cfg)
    if datamodule.TASK.foreign is None:
        raise InputError(f"out={folder}: {datamodule.TASK.name} is not exported: {UNRANKED}")
    folder.mkdir(parents=True, exist_ok=True)
    files = datamodule.TASK.foreign.export(datamodule.record_whole, datamodule.split.part, folder, name)
    datamodule.write(folder)
    return [*files, folder / "split.parquet"]


def _without_model(cfg: DictConfig, wanted: Judgment) -> dict[str, Any]:
    """The config of the data, split, baselines and evaluation, with the judged system in place of a model."""
    kept = ("name", "data", "graph", "split", "baselines", "evaluation", "seed", "paths")
    found = {key: OmegaConf.to_container(cfg)[key] for key in kept if key in cfg}  # type: ignore[call-overload,index]
    return {**found, "name": wanted.benchmark or cfg.name, "predictions": wanted.name}


def _plain(name: str) -> str:
    """A name that a folder may have."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".")[:80]


def _predictions(datamodule: RecordDataModule, wanted: Judgment, part: str) -> tuple[np.ndarray, list[str]]:
    """Predictions of the part's samples [p, T], and sentences on what did not meet."""
    known, record = datamodule.TASK.foreign, datamodule.record_whole
    if known is None:
        raise InputError(f"predictions={wanted.predictions}: {datamodule.TASK.name} is not judged: {UNRANKED}")
    if not isinstance(wanted.predictions, InMemory) and not Path(wanted.predictions).is_file():
        raise InputError(f"predictions={wanted.predictions}: no such file")
    found = known.read(wanted.predictions, record, wanted.how)
    return matched(found, known.keys(record), datamodule.split.index(part), wanted.predictions)


def _copied(datamodule: RecordDataModule, predicted: np.ndarray, part: str) -> tuple[Check, ...]:
    """A failed check where the predictions are the measured values, which the exported data hold."""
    record = datamodule.record(part)
    control, measured = datamodule.input_control(record), np.asarray(record.target, dtype=np.float64)
    start = np.nanmean(measured, axis=0) if control is None else control
    known = np.isfinite(measured) & np.isfinite(predicted)
    left = np.square(measured - predicted)[known].sum() / max(np.square(measured - start)[known].sum(), 1e-30)
    if left > SAME:
        return ()
    text = f"its predictions are the measured values of the part {part!r} (they differ by {left:.0e} of the variance)"
    return (Check(MEASURED, "failed", text, text),)


def _exchanged(
    datamodule: RecordDataModule, predicted: np.ndarray, part: str, seed: int
) -> Mapping[str, list[np.ndarray]]:
    """Predictions with the perturbations exchanged among samples, as a model that reads nothing else would give them.

    They are exchanged among samples that share all else, so that what a model makes of a cell line is not taken for use
    of the drug. Of expression the distances from what an unperturbed sample of the line has are exchanged.
    """
    known, names = datamodule.TASK.foreign, datamodule.inputs()
    if known is None or not names:
        return {}
    record = datamodule.record(part)
    _, number = np.unique(known.keys(record), return_inverse=True)
    _, stratum = np.unique(known.others(record, names[0]), return_inverse=True)
    alike = [np.flatnonzero(stratum == one) for one in range(stratum.max() + 1)]
    generator = torch.Generator().manual_seed(seed)
    start = known.start(record)
    change = predicted if start is None else predicted - start
    draws = []
    for _ in range(max(1, min(SHUFFLES, ENOUGH // len(predicted)))):
        order = np.arange(len(predicted))
        for at in alike:
            if (turned := derangement(torch.from_numpy(number[at]), generator)) is not None:
                order[at] = at[turned.numpy()]
        if (number[order] != number).any():
            draws.append(change[order] if start is None else change[order] + start)
    return {f"{names[0]}_shuffled": draws}
