"""The half of ``sameness.py`` that says what differs between two sets."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sameness_set import leaves_of, parts_of, renamed, systems_of

MOST = 20
"""Lines of a part that are shown unless all are asked for."""


@dataclass(frozen=True)
class Difference:
    """One line of the answer.

    Attributes:
        part: Experiment, ``configs``, ``tests`` or ``bench``.
        what: What differs.
        how: How much.
        kind: ``changed``; ``gone``: only A has it; ``new``: only B.
    """

    part: str
    what: str
    how: str
    kind: Literal["changed", "gone", "new"] = "changed"


def compare(
    a: Path, b: Path, only: Sequence[str] | None, rename: Mapping[str, str], tolerance: float
) -> list[Difference]:
    """Say what differs between two sets: split, predictions, metrics, weights, configs, tests, targets.

    Args:
        a: The set from before.
        b: The set from after.
        only: Parts to look at; none: all of A's, and what B has besides is new.
        rename: Old name -> new name, for what A holds.
        tolerance: Largest absolute difference of two numbers that are the same.

    Raises:
        IncompleteSet: A set that is empty, or lacks a part or a file.
    """
    wanted = [*(only or parts_of(a))]
    before, after = parts_of(a, wanted), parts_of(b, [renamed(name, rename) for name in wanted])
    found: list[Difference] = []
    for name in wanted:
        now = renamed(name, rename)
        found += _compare_part(now, a / name, b / now, before[name], after[now], rename, tolerance)
    if only is None:
        found += [
            Difference(name, "the whole part", "only B has it", "new") for name in parts_of(b) if name not in after
        ]
    return found


def _compare_part(
    part: str, a: Path, b: Path, before: list[str], after: list[str], rename: Mapping[str, str], tolerance: float
) -> list[Difference]:
    """What differs in one part, file by file."""
    files = {renamed(name, rename): name for name in before}
    found: list[Difference] = []
    for now, then in files.items():
        if now == "best.ckpt":
            continue  # its tensors are in weights.json; the file says how much they differ
        if now not in after:
            found.append(Difference(part, now, "only A has the file", "gone"))
        elif now == "split.parquet":
            found += _compare_split(part, a / then, b / now)
        elif now == "weights.json":
            found += _compare_weights(part, a, b, rename)
        elif now.endswith((".parquet", ".h5ad")):
            found += _compare_predictions(part, a / then, b / now, rename, tolerance)
        else:
            old = {renamed(name, rename): _mapped(value, rename) for name, value in leaves_of(a / then).items()}
            found += _compare_leaves(part, _label(now), old, leaves_of(b / now), tolerance)
    new = sorted(set(after) - set(files) - {"best.ckpt"})
    return found + [Difference(part, name, "only B has the file", "new") for name in new]


def _label(file: str) -> str:
    """What a file's lines begin with."""
    return {"ids.txt": "", "targets.json": ""}.get(file, f"{file} ")


def _mapped(value: Any, rename: Mapping[str, str]) -> Any:
    """Texts that name what was renamed, such as a ``_target_``, are mapped too."""
    return renamed(value, rename) if isinstance(value, str) else value


def _compare_leaves(
    part: str, label: str, a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float
) -> list[Difference]:
    found = []
    for name in dict.fromkeys([*a, *b]):
        if name not in b:
            found.append(Difference(part, f"{label}{name}", _short(a[name]), "gone"))
        elif name not in a:
            found.append(Difference(part, f"{label}{name}", _short(b[name]), "new"))
        elif not _same(a[name], b[name], tolerance):
            numbers = _is_number(a[name]) and _is_number(b[name])
            by = f" ({b[name] - a[name]:+.3g})" if numbers else ""
            found.append(Difference(part, f"{label}{name}", f"{_short(a[name])} -> {_short(b[name])}{by}"))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if _is_number(a) and _is_number(b):
        return bool(a == b or (a != a and b != b) or abs(a - b) <= tolerance)
    return type(a) is type(b) and a == b


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 90 else f"{text[:87]}..."


def _compare_split(part: str, a: Path, b: Path) -> list[Difference]:
    """Samples that are in another part or group, that are gone, or new."""
    import pandas as pd

    old, new = (pd.read_parquet(file).set_index("sample_id").astype(str) for file in (a, b))
    found = []
    shared = old.index.intersection(new.index)
    for column in [column for column in old if column in new]:
        moved = int((old.loc[shared, column] != new.loc[shared, column]).sum())
        if moved:
            found.append(Difference(part, f"split, {column}", f"{moved:,} of {len(shared):,} samples have another"))
    for one, other, kind in ((old, new, "gone"), (new, old, "new")):
        left = one.index.difference(other.index)
        if len(left):
            found.append(Difference(part, "split", f"{len(left):,} samples, e.g. {left[0]}", kind))
    return found


def _compare_weights(part: str, a: Path, b: Path, rename: Mapping[str, str]) -> list[Difference]:
    """Tensors of the checkpoint that differ, and by how much where both sets hold the file."""
    old, new = (json.loads((folder / "weights.json").read_text()) for folder in (a, b))
    was = {renamed(name, rename): name for name in old}
    found = [Difference(part, f"weights {name}", "only A has it", "gone") for name in was if name not in new]
    found += [Difference(part, f"weights {name}", "only B has it", "new") for name in new if name not in was]
    changed = [name for name in was if name in new and old[was[name]] != new[name]]
    if not changed:
        return found
    how = f"{len(changed)} of {len(was)} tensors differ: {', '.join(changed[:3])}"
    if (a / "best.ckpt").is_file() and (b / "best.ckpt").is_file():
        import torch

        before, after = (
            torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"] for folder in (a, b)
        )
        pairs = [(before[was[name]], after[name]) for name in changed]
        gaps = [float((x.double() - y.double()).abs().max()) for x, y in pairs if x.shape == y.shape and x.numel()]
        how += f"; the largest difference is {max(gaps, default=float('nan')):.3g}"
    return [*found, Difference(part, "weights", how)]


def _compare_predictions(part: str, a: Path, b: Path, rename: Mapping[str, str], tolerance: float) -> list[Difference]:
    """Per system the largest absolute difference over what both have predicted."""
    import pandas as pd

    old = {renamed(name, rename): frame for name, frame in systems_of(a).items()}
    new = systems_of(b)
    found = [Difference(part, f"{b.name} {name}", "only A has it", "gone") for name in old if name not in new]
    found += [Difference(part, f"{b.name} {name}", "only B has it", "new") for name in new if name not in old]
    for name in [name for name in old if name in new]:
        x, y = old[name], new[name]
        if b.suffix == ".parquet":
            x.columns = y.columns = pd.Index([name])
        rows, columns = x.index.intersection(y.index), x.columns.intersection(y.columns)
        if len(rows) < max(len(x), len(y)) or len(columns) < max(x.shape[1], y.shape[1]):
            found.append(
                Difference(
                    part,
                    f"{b.name} {name}",
                    f"values [{x.shape[0]:,}, {x.shape[1]:,}] -> "
                    f"[{y.shape[0]:,}, {y.shape[1]:,}], both have [{len(rows):,}, {len(columns):,}]",
                )
            )
        x, y = x.loc[rows, columns], y.loc[rows, columns]
        if all(pd.api.types.is_numeric_dtype(kind) for kind in (*x.dtypes, *y.dtypes)):
            gap = np.abs(x.to_numpy(np.float64) - y.to_numpy(np.float64))
            one_sided = int((x.isna().to_numpy() != y.isna().to_numpy()).sum())
            wrong = int((gap > tolerance).sum()) + one_sided
            how = f"largest difference {np.nanmax(gap, initial=0.0):.3g}, {wrong:,} of {gap.size:,} values differ"
            how += f", {one_sided:,} of them missing in one" if one_sided else ""
        else:
            wrong = int((x.astype(str) != y.astype(str)).to_numpy().sum())
            how = f"{wrong:,} of {x.size:,} texts differ"
        if wrong:
            found.append(Difference(part, f"{b.name} {name}", how))
    return found


def print_differences(differences: Sequence[Difference], every: bool) -> None:
    """A table of what changed or is gone, one of what is new, and one line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=200)
    titles = {"changed": "changed", "gone": "gone: only A has it", "new": "new: only B has it"}
    for kind, title in titles.items():
        rows = [one for one in differences if one.kind == kind]
        if not rows:
            continue
        table = Table(title=title, title_justify="left")
        for column in ("part", "what", "how much"):
            table.add_column(column, overflow="fold")
        for part in dict.fromkeys(one.part for one in rows):
            of_part = [one for one in rows if one.part == part]
            for one in of_part if every else of_part[:MOST]:
                table.add_row(*(Text(cell) for cell in (part, one.what, one.how)))
            if len(of_part) > MOST and not every:
                table.add_row(Text(part), Text(f"... and {len(of_part) - MOST:,} more (--all shows them)"), Text(""))
        console.print(table)
    counts = [f"{sum(one.kind == kind for one in differences):,} {kind}" for kind in titles]
    console.print("nothing differs" if not differences else ", ".join(counts), highlight=False)
