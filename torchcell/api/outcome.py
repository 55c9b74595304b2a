"""``Outcome``: what the folder of a run, or of judged predictions, says; shown in a notebook."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchcell.io.errors import InputError, readable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLORS = {"green": "#1a7f37", "red": "#cf222e"}
"""Of a verdict: better and worse; any other has the color of the text."""
CEILING = "replicate_ceiling"
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'\">"
)
"""Put before a page that may be a stranger's: no image or style is fetched, which would tell others who reads it."""


class Outcome:
    """What was found of one system beside its baselines: verdict, scores, figures, page.

    Args:
        path: The folder with the tables.

    Attributes:
        path: The same.

    Example:
        >>> import torchcell as tc
        >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
        >>> from torchcell.api.outcome import Outcome
        >>> Outcome(run.path).verdict == run.verdict
        True
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Content of ``metrics.json``: verdict, checks, split, hashes."""
        from torchcell.io.run_files import read_summary

        return read_summary(self._file("metrics.json"))

    @property
    def verdict(self) -> str:
        """The one line on whether the model beat the baselines, as the files say it; ``evaluate`` scores anew.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> run.verdict.startswith("Dango: ")
            True
        """
        return readable(" ".join(f"{self.summary['model']}: {self.summary['verdict']['text']}".split()))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Value and 95 % interval of every system on every metric.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> run.metrics.columns[:4].tolist()
            ['system', 'part', 'metric', 'value']
        """
        from torchcell.io.run_files import read_scores

        return read_scores(self._file("metrics.csv"))

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """The model minus each baseline on each compared metric, with the paired 95 % interval.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> len(run.comparisons)  # there were no baselines
            0
        """
        return self._table("comparisons.csv")

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch, counted from 0.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> len(run.history)
            1
        """
        return self._table("history.csv")

    @property
    def plot(self) -> Plots:
        """Figures: ``run.plot.forest()``, ``run.plot.training()``.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> figure = run.plot.forest("spearman")
        """
        return Plots(self)

    def report(self) -> Page:
        """The run's page, shown in a notebook; ``str(run.report())`` is its path.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> str(run.report()).endswith("report.html")
            True
        """
        return Page(self._file("report.html"))

    # How it is shown --------------------------------------------------------------------------------

    def __repr__(self) -> str:
        scored = (self.path / "metrics.json").is_file()
        return f"{type(self).__name__}({str(self._given)!r})\n{self.verdict if scored else 'not scored yet'}"

    @property
    def _given(self) -> Path:
        """What it was opened by."""
        return self.path

    def _repr_html_(self) -> str:
        """Verdict, table and forest plot."""
        if not (self.path / "metrics.json").is_file():
            return f"<p>{_escaped(self)}</p>"
        color = COLORS.get(str(self.summary["verdict"].get("color")), "inherit")
        head = f'<p style="font-weight:bold;color:{color}">{_escaped(self.verdict)}</p>'
        rows = "".join(
            "<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in self._compared()
        )
        names = "".join(f"<th>{_escaped(name)}</th>" for name in ("system", *self._shown_metrics()))
        table = f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"
        return f"{head}{table}{_image(self.plot.forest())}<p><code>{_escaped(self.path)}</code></p>"

    def _shown_metrics(self) -> list[str]:
        """The primary metric and those of calibration, as far as the table has them."""
        verdict = self.summary["verdict"]
        names = [verdict["metric"], *(one["metric"] for one in verdict.get("calibration", ()))]
        return [name for name in dict.fromkeys(names) if (self.metrics["metric"] == name).any()]

    def _compared(self) -> list[list[str]]:
        """A row a system: its values and intervals."""
        numbers = zip(*(self.metrics[name] for name in ("system", "metric", "value", "low", "high")), strict=True)
        cells = {(system, metric): _cell(*found) for system, metric, *found in numbers}
        names = self._shown_metrics()
        return [[system, *(cells.get((system, name), "") for name in names)] for system in self._roles()]

    def _roles(self) -> dict[str, str]:
        """Role of each system, in the order of the table."""
        known = {str(self.summary["model"]): "model", CEILING: "ceiling"}
        known |= dict.fromkeys(self.summary.get("comparators", ()), "comparator")
        rows = self.metrics[self.metrics["metric"] == self.summary["verdict"]["metric"]]
        return {system: known.get(system, "baseline") for system in rows["system"].astype(str)}

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise InputError(f"{path} is not there: the run was not scored; python -m torchcell.evaluate scores it")
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise InputError(
                f"{path} leads out of the run's folder, to what could be any file of yours; put a copy there"
            )
        return path

    def _table(self, name: str) -> pd.DataFrame:
        from torchcell.io.run_files import read_rows

        return read_rows(self._file(name))


@dataclass(frozen=True)
class Plots:
    """Figures of a run; each is a matplotlib figure."""

    run: Outcome

    def forest(self, metric: str | None = None) -> Figure:
        """Every system's value and 95 % interval on one metric.

        Args:
            metric: As in ``run.metrics``; none: the primary one.

        Raises:
            InputError: A metric that the run does not have.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> run.plot.forest().axes[0].get_title(loc="left")
            'pearson ↑'
        """
        from torchcell.evaluation.registry import higher_is_better, is_known, learned_directions
        from torchcell.io.errors import near
        from torchcell.report.page import literal
        from torchcell.report.plots import forest_of

        summary, table = self.run.summary, self.run.metrics
        name = str(summary["verdict"]["metric"]) if metric is None else metric
        if name not in set(table["metric"]):
            raise InputError(f"no metric {name!r}; the nearest are {near(name, sorted(set(table['metric'])))}")
        rows = table[table["metric"] == name]
        roles = {system: role for system, role in self.run._roles().items() if system in set(rows["system"])}
        with learned_directions(one for one in summary.get("lower_is_better", ()) if not is_known(one)):
            return literal(forest_of(rows, roles, name, higher_is_better(name)))

    def training(self) -> Figure | None:
        """Learning curves; none where there is no epoch.

        Example:
            >>> import torchcell as tc
            >>> run = tc.fit("simulated_dango", "+debug=fast", "baselines=none")
            >>> [axes.get_xlabel() for axes in run.plot.training().axes]
            ['epoch', 'epoch']
        """
        from torchcell.report.page import literal
        from torchcell.report.plots import learning_curves

        figure = learning_curves(self.run.history)
        return None if figure is None else literal(figure)


@dataclass(frozen=True)
class Page(os.PathLike):
    """A run's page; a notebook shows it in a frame that runs no script and reads nothing else."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        content = html.escape(POLICY + self.path.read_text(encoding="utf-8", errors="replace"))
        return f'<iframe sandbox="" srcdoc="{content}" style="width:100%;height:40em;border:0"></iframe>'


def _cell(value: float, low: float, high: float) -> str:
    if value != value:
        return "undefined"
    return f"{value:.3f}" if low != low else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _escaped(text: object) -> str:
    return html.escape(readable(text))


def _image(figure: Figure) -> str:
    """A figure as text of a page."""
    import base64
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return f'<img alt="forest plot" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'
