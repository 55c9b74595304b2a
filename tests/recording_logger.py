"""A Lightning logger that remembers what it was given, as a user may bring one."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger


class Recording(Logger):
    """Keeps all in memory.

    Args:
        save_dir: The run's folder.
        color: Any word.
        fails_at: The call of ``log_metrics`` that fails; None for none.
    """

    made: ClassVar[list[Recording]] = []

    def __init__(self, save_dir: str, color: str = "red", fails_at: int | None = None) -> None:
        super().__init__()
        self._save_dir, self.color, self.fails_at = save_dir, color, fails_at
        self.metrics: list[tuple[dict[str, float], int | None]] = []
        self.images: dict[str, list[str]] = {}
        self.hyperparams: dict[str, Any] = {}
        self.finalized = False
        self.made.append(self)

    name = "recording"
    version = "0"

    @property
    def save_dir(self) -> str:
        return self._save_dir

    def log_metrics(self, metrics, step=None) -> None:
        if len(self.metrics) + 1 == self.fails_at:
            raise ConnectionError("no connection")
        self.metrics.append((dict(metrics), step))

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        self.hyperparams = params

    def log_image(self, key: str, images: list[str]) -> None:
        self.images[key] = images

    def finalize(self, status: str) -> None:
        self.finalized = True
