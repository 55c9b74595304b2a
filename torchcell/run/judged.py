"""What a model's own run said of it, for those who use its predictions."""

from __future__ import annotations

import json
from pathlib import Path


def judged_as(ckpt: str | Path) -> str:
    """The verdict of the run that a checkpoint belongs to, in the words of its report; empty where there is no run.

    Args:
        ckpt: ``RUN/checkpoints/best.ckpt``, whose verdict it is, or another one of that run.
    """
    path = Path(ckpt).resolve()
    file = path.parents[1] / "metrics.json"
    if path.parent.name != "checkpoints" or not file.is_file():
        return ""
    try:
        summary = json.loads(file.read_text())
    except ValueError:
        return ""
    verdict = summary.get("verdict")
    if not isinstance(verdict, dict):  # of a run before 2026-11-29
        return ""
    whose = "" if path.stem == "best" else f" (of best.ckpt, not of {path.name})"
    return f"its run's verdict{whose}: {summary.get('model')}: {verdict['text']}"
