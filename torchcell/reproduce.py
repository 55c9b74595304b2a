"""``python -m torchcell.reproduce RUN``: train a run's config again, and compare the numbers."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.io.command import in_one_line
from torchcell.io.errors import InputError, readable, some
from torchcell.io.paths import refuse_links, refuse_unwritable
from torchcell.io.run_files import read_json, read_scores
from torchcell.training import environment

if TYPE_CHECKING:
    import pandas as pd


NOT_COMPARED = ("seconds", "peak_mb", "samples_per_s", "comparators", "content")
"""Keys of ``metrics.json`` that are of the machine to the last bit, or of other runs that ``evaluate`` was given."""


MOST_DEVICES = 32
"""Processes that a config which may be a stranger's starts on a machine; nodes have 16 devices at most."""


@dataclass(frozen=True, eq=False)
class Reproduced:
    """What came of it.

    Attributes:
        folder: The new run.
        table: ``what, then, now, difference, agrees``: every number and name that both runs wrote.
        tolerance: The largest absolute difference that agrees.
        unlike: What of versions, processor and threads was other than then, a line each.
    """

    folder: Path
    table: pd.DataFrame
    tolerance: float
    unlike: Sequence[str] = ()

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return bool(self.table["agrees"].all())

    @property
    def verdict(self) -> str:
        """One line."""
        wrong, n = self.table[~self.table["agrees"]], len(self.table)
        if wrong.empty:
            largest = self.table["difference"].max()
            return (
                f"reproduced: all {n} values agree within {self.tolerance:g}; the largest difference is {largest:.2g}"
            )
        order = wrong["difference"].fillna(float("inf")).sort_values(ascending=False)
        worst = wrong.loc[order.index[0]]
        why = f"; it was made with other {', '.join(line.partition(':')[0] for line in self.unlike)}"
        return (
            f"NOT reproduced: {len(wrong)} of {n} values differ by more than {self.tolerance:g}, the most "
            f"{worst['what']}: {worst['then']} then, {worst['now']} now{why if self.unlike else ''}"
        )


def reproduce(
    run: Path,
    out: Path,
    tolerance: float = 1e-6,
    at_commit: bool = False,
    any_code: bool = False,
    trust: Sequence[str] = (),
) -> Reproduced:
    """Train what ``run/config.yaml`` says into a new folder, with as many threads, and compare what the two hold.

    Args:
        run: Folder of a finished run.
        out: Folder below which the new one is made; an earlier one of the same run is overwritten.
        tolerance: Absolute, for every number.
        at_commit: Use the run's own commit, checked out into a temporary worktree.
        any_code: Use the code that is here, whatever its commit.
        trust: Packages besides ours that the config may call.

    Raises:
        InputError: No finished run; other code than the run's and neither of the two; training failed; a
            config that calls what no run calls, since the folder may be a stranger's.
    """
    refuse_links(run)
    needed = ("config.yaml", "environment.json", "metrics.json", "metrics.csv")
    missing = [name for name in needed if not (run / name).is_file()]
    if missing:
        raise InputError(f"{run} is not the folder of a finished run: it has no {some(missing)}")
    config = checked_config(run, trust, at_commit)
    _values(run)  # what can't be compared is refused before it is trained
    then, variables = _environment(run / "environment.json")
    changed = code_change(then)
    if changed and not (at_commit or any_code):
        raise InputError(
            f"{changed}; --at-commit reruns it with the code of then, in a temporary git worktree; "
            "--any-code with the code that is here"
        )
    if changed and any_code:
        print(readable(f"note: {changed}"), file=sys.stderr)
    if at_commit and then["git_dirty"]:
        print("note: the run was made of uncommitted changes too, which are lost", file=sys.stderr)
    runs = out / f"{run.resolve().parent.name}-{run.resolve().name}"
    with _code(then["git_commit"] if at_commit else None) as root:
        _train(config, runs, root, variables, trust)
    found = sorted(runs.rglob("metrics.json"), key=lambda path: path.stat().st_mtime)
    folder = found[-1].parent
    unlike = environment.differences(then, read_json(folder / "environment.json"))
    for line in unlike:
        print(readable(f"note: {line}"), file=sys.stderr)
    return Reproduced(folder, compare(run, folder, tolerance), tolerance, unlike)


def checked_config(run: Path, trust: Sequence[str] = (), at_commit: bool = False) -> dict[str, Any]:
    """The config of a run that may be a stranger's, as plain values that call nothing but what runs call.

    Hydra never sees the folder: what is returned is what is trained. Loggers are left out.

    Args:
        run: Its folder.
        trust: Packages besides ours that the config may call.
        at_commit: Whether it is for the code of another commit.

    Raises:
        InputError: It is no config of plain values; it calls anything else; it went on from another run.
    """
    from torchcell.io.configurable import check_config
    from torchcell.io.plain_config import read_plain, resolved

    source = run / "config.yaml"
    config = resolved(read_plain(source), source)
    steps = (config.pop("logger", None) or {}).get("every_n_steps")
    for key, node in config.items():
        check_config(node, trust, key, at_commit)
    if config.get("ckpt_path") not in (None, "last", "auto"):  # with these it went on with itself
        raise InputError(f"{run} went on from {config['ckpt_path']}; a run that starts from nothing can be reproduced")
    devices = (config.get("trainer") or {}).get("devices", 1)
    if (isinstance(devices, int) and devices > MOST_DEVICES) or (isinstance(devices, list | str) and len(devices) > 99):
        raise InputError(f"{source}: trainer.devices starts more processes than the {MOST_DEVICES} that a run may have")
    return {**config, "ckpt_path": None, "logger": {"_target_": None, "wandb": None, "every_n_steps": steps}}


def _environment(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a run was made in, and the variables for as many threads.

    Raises:
        InputError: It is not as torchcell writes it.
    """
    then = read_json(path, "git_commit", "git_dirty")
    try:
        environment.differences(then, then)
        variables = environment.variables_of(then)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path} is not as torchcell writes it ({type(error).__name__}: {error})") from error
    if not isinstance(then["git_commit"], str):
        raise InputError(f"{path}: git_commit is a {type(then['git_commit']).__name__}, and no text")
    return then, variables


def code_change(then: Mapping[str, Any]) -> str:
    """Why the code is, or may be, other than the run's; empty if it is the same."""
    from torchcell.training.run_folder import environment_facts

    now = environment_facts()
    if then["git_commit"] != now["git_commit"]:
        was, here = (one["git_commit"][:12] or "no git commit" for one in (then, now))
        return f"the run was made by {was}, and the code here is {here}"
    if then["git_dirty"]:
        return "the run was made of uncommitted changes too, which nothing holds"
    return "the code here has uncommitted changes" if now["git_dirty"] else ""


def compare(then: Path, now: Path, tolerance: float) -> pd.DataFrame:
    """Every value of ``metrics.json`` and ``metrics.csv`` of two runs, as ``what, then, now, difference, agrees``."""
    import pandas as pd

    old, new = _values(then), _values(now)
    rows = []
    for what in dict.fromkeys([*old, *new]):
        a, b = old.get(what), new.get(what)
        numbers = _is_number(a) and _is_number(b)
        difference = abs(float(a) - float(b)) if numbers else float("nan")  # type: ignore[arg-type]
        same = a == b or (numbers and a != a and b != b)
        rows.append((what, a, b, 0.0 if numbers and same else difference, bool(same or difference <= tolerance)))
    return pd.DataFrame(rows, columns=["what", "then", "now", "difference", "agrees"])


def _values(run: Path) -> dict[str, Any]:
    """Name -> number or text: of ``metrics.json`` by its path in it, of ``metrics.csv`` by part, system and metric."""
    summary = read_json(run / "metrics.json")
    found = dict(_leaves({key: value for key, value in summary.items() if key not in NOT_COMPARED}))
    table = read_scores(run / "metrics.csv")
    for row in table[~table["system"].isin(summary.get("comparators", {}))].itertuples():
        for column in ("value", "low", "high"):
            name = f"{row.part}/{row.system}/{row.metric}"
            found[name if column == "value" else f"{name} {column}"] = float(getattr(row, column))
    return found


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def _code(commit: str | None) -> Iterator[Path]:
    """The folder that holds the package: of this process, or of a worktree of ``commit`` that goes away again."""
    here = Path(__file__).resolve().parents[1]
    if commit is None:
        yield here
        return
    if not commit:
        raise InputError("the run knows no git commit; --any-code reruns it with the code that is here")
    if not re.fullmatch("[0-9a-f]{7,64}", commit):
        raise InputError(
            f"environment.json names {commit[:80]!r}, which is no git commit; --any-code reruns the config"
        )
    found = _git(here, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if found.returncode:
        raise InputError(
            f"git has no commit {commit[:12]} in {here}; fetch it, or rerun with the code that is here by --any-code"
        )
    own = _git(here, "for-each-ref", "--count=1", "--contains", found.stdout.strip(), "refs/heads")
    behind = _git(here, "merge-base", "--is-ancestor", found.stdout.strip(), "HEAD")
    if behind.returncode and not own.stdout.strip():
        raise InputError(
            f"the commit {commit[:12]} that the run names is in no branch of yours: its code may be a stranger's, and "
            f"would run. If you have read it, make it yours by git branch NAME {commit[:12]}; or rerun with the code "
            "that is here by --any-code"
        )
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "code"
        made = _git(here, "worktree", "add", "--detach", str(tree), found.stdout.strip())
        if made.returncode:
            raise InputError(f"git makes no worktree of {commit[:12]} in {here}: {made.stderr.strip()}")
        try:
            yield tree
        finally:
            _git(here, "worktree", "remove", "--force", str(tree))


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)


def _train(
    config: Mapping[str, Any], runs: Path, root: Path, variables: Mapping[str, str], trust: Sequence[str] = ()
) -> None:
    """``torchcell.train`` of the code in ``root`` on a config, in a process and from a folder of its own.

    Args:
        config: See ``checked_config``.
        runs: Where the new run goes.
        root: Folder that holds the package.
        variables: Of the process's environment, for the run's number of threads.
        trust: Packages of the user's, which may stand in the working directory.
    """
    from omegaconf import OmegaConf

    paths = {**config.get("paths", {}), "runs": str(runs.absolute())}
    # Safe path: else the folder where we are called would be searched for torchcell before `root`.
    path = os.pathsep.join([str(root), *([os.getcwd()] if trust else [])])
    environment = {**os.environ, **variables, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    quiet = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    with tempfile.TemporaryDirectory() as folder:
        OmegaConf.save(OmegaConf.create({**config, "paths": paths, "overwrite": True}), Path(folder) / "config.yaml")
        # `--config-dir`: else a folder `conf` in the working directory would be searched too.
        where = ["--config-path", folder, "--config-dir", folder, "--config-name", "config"]
        command = [sys.executable, "-m", "torchcell.train", *where, *quiet]
        ended = subprocess.run(command, env=environment, check=False)
    if ended.returncode:
        raise InputError(f"training ended with status {ended.returncode}, see above")


@in_one_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, rerun, print the table and the verdict; 0 only if the run was reproduced."""
    parser = argparse.ArgumentParser(
        prog="python -m torchcell.reproduce",
        description="Train the config of a finished run again and compare all that is in metrics.json and metrics.csv. "
        "Ends with 0 if every value agrees, else with 1.",
    )
    parser.add_argument("run", type=Path, help="folder of the run: runs/<experiment>/<hash>-s<seed>")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("reproduced"), help="where the new run goes (reproduced)"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-6, help="largest absolute difference (1e-6: same machine and versions)"
    )
    code = parser.add_mutually_exclusive_group()
    code.add_argument("--at-commit", action="store_true", help="with the run's commit, in a temporary git worktree")
    code.add_argument(
        "--any-code", action="store_true", help="with the code that is here, even if it has changed since"
    )
    parser.add_argument("--trust", nargs="*", default=[], metavar="PACKAGE", help="of yours, that the config may call")
    given = parser.parse_args(arguments)
    refuse_unwritable(given.out, "-o")
    found = reproduce(given.run, given.out, given.tolerance, given.at_commit, given.any_code, given.trust)
    _show(found, given.run)
    print(readable(f"the new run is {found.folder}"))
    print(readable(found.verdict))
    return 0 if found.agrees else 1


def _show(found: Reproduced, run: Path) -> None:
    """The model's metrics, and whatever else differs."""
    from rich.markup import escape
    from rich.table import Table

    from torchcell.io.console import Console

    model = read_json(run / "metrics.json").get("model")
    screen = Table(title=escape(f"{run}: then and now"), title_justify="left")
    for name in ("metric", "then", "now", "difference", ""):
        screen.add_column(name, justify="left" if name == "metric" else "right")
    for row in found.table.itertuples():
        is_interval = str(row.what).endswith((" low", " high"))
        if (f"/{model}/" in str(row.what) and not is_interval) or not row.agrees:
            both: list[Any] = [row.then, row.now]
            shown = [f"{value:.6g}" if _is_number(value) else str(value) for value in both]
            screen.add_row(
                *map(escape, (str(row.what), *shown)), format(row.difference, ".2g"), "" if row.agrees else "differs"
            )
    (Console() if sys.stdout.isatty() else Console(width=160)).print(screen)


if __name__ == "__main__":
    sys.exit(main())
