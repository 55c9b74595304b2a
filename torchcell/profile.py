"""``python -m torchcell.profile``: what each representation costs in each phase of a training step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchcell.training.entry import run_entry

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig


def profile(cfg: DictConfig) -> pd.DataFrame:
    """Measure, print the table, write it and a page; see ``torchcell.training.profile.rows`` for the columns."""
    import os
    from pathlib import Path

    import pandas as pd
    import torch

    from torchcell.io.cache import atomic_write
    from torchcell.io.console import Console
    from torchcell.io.paths import refuse_unwritable
    from torchcell.report import profile
    from torchcell.report.page import write_page
    from torchcell.training.distributed.placement import placed
    from torchcell.training.distributed.processes import run_in_processes
    from torchcell.training.model_task import refuse_other_task
    from torchcell.training.profile import representations, rows

    refuse_other_task(cfg)
    representations(cfg)  # a wrong name is told before any process starts
    out = Path(cfg.profile.out or Path(cfg.paths.runs) / "profile" / str(cfg.name))
    refuse_unwritable(out, "profile.out")
    table = pd.DataFrame(run_in_processes(rows, cfg))
    place = placed(os.environ)
    if place is not None and place.rank > 0:  # torchrun and srun start as many of this
        return table
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    table["device"] = torch.cuda.get_device_name() if on_gpu else "cpu"
    table["threads"], table["torch"] = torch.get_num_threads(), torch.__version__
    table = table[[*profile.COLUMNS, "reference", "batch_size", "processes", "device", "threads", "torch"]]

    title = f"{cfg.name}, {cfg.model._target_.rpartition('.')[2]}"
    profile.show(table, title)
    with atomic_write(out / "profile.csv") as temporary:
        table.to_csv(temporary, index=False)
    sections, summary = profile.sections(table, title), profile.summary(table)
    pages = write_page(out / "profile.html", name=title, verdict=summary, tone="open", sections=sections, facts={})
    for path in (out / "profile.csv", *pages):
        Console().print(f"wrote {path}", soft_wrap=True, highlight=False)
    return table


if __name__ == "__main__":
    run_entry(profile, "profile")
