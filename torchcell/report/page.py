"""``report.html``: one self-contained page with the verdict in its first line and all figures inside."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from torchcell.evaluation.evaluate import Evaluation
from torchcell.evaluation.results import Results
from torchcell.report.first_screen import Step, data_words, next_steps, origin, primary_forest, verdict_parts, warnings
from torchcell.report.layout import blocks
from torchcell.report.sections import Section, default_sections, glossary
from torchcell.report.svg import to_svg

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure


log = logging.getLogger(__name__)

FIRST = "The primary metric"
"""Title of the figure beside the verdict."""
DPI = 160
PIXELS_PER_INCH = 108
"""Size of figures on the page; it makes letters the same size in all figures."""
TONES = {"green": "good", "red": "bad", "grey": "open"}
_SHOWN_ELSEWHERE = ("dropped", "units", "notes", "name", "contents")
"""Entries of ``info`` that the table of facts leaves out."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """A section with its figure as SVG and its table as cells; ``slug`` is its place on the page."""

    title: str
    slug: str
    text: str
    caption: str
    figure: str
    width: int
    heads: list[str]
    rows: list[list[str]]


def write_report(
    folder: Path,
    *,
    evaluation: Evaluation,
    results: Results,
    history: pd.DataFrame | None,
    info: Mapping[str, Any],
    checks: Mapping[str, Any],
    sections: Mapping[str, Callable[[], Sequence[Section]]] = MappingProxyType({}),
) -> list[Path]:
    """Write ``report.html`` and ``figures/*.png`` into the run's folder.

    Args:
        folder: The run folder.
        evaluation: Table and verdict.
        results: The first of the scored results.
        history: One row per epoch; none: nothing was trained.
        info: Facts of the run, e.g. ``name``, ``split``, ``split_hash``, ``git_commit``, ``seconds``,
            ``epochs``, ``units`` (unit by output), ``dropped`` (counts of what was left out),
            ``contents`` (what the data hold, counts by a noun in the singular), ``notes`` (sentences). Any further
            entry is listed as it is.
        checks: As in ``metrics.json``.
        sections: Functions that make further sections, by heading; one that fails becomes a line of the page.

    Returns:
        The files written, the page first.
    """
    makers: dict[str, Callable[[], Sequence[Section]]] = {FIRST: lambda: [_first_figure(evaluation, results)]}
    makers |= {**default_sections(evaluation, results, history, info, checks), **sections}
    made = [section for title, make in makers.items() for section in made_or_failed(title, make)]
    shown, files = draw(made, lambda slug: folder / "figures" / f"{slug}.png")
    page = folder / "report.html"
    steps = next_steps(evaluation, results, folder, info)
    _write(page, render(evaluation, results, info, shown, warnings(info, checks), steps))
    return [page, *files]


def _first_figure(evaluation: Evaluation, results: Results) -> Section:
    caption = "Value and 95 % interval of every system that has one; the model in blue."
    return Section(FIRST, "", primary_forest(evaluation, results), name="primary", caption=caption)


def write_page(
    page: Path,
    *,
    name: str,
    verdict: str,
    tone: str,
    sections: Sequence[Section],
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write a page of sections without scores, its figures beside it as ``<page>_<figure>.png``.

    Args:
        page: The file.
        name: Heading.
        verdict: Its first line.
        tone: ``good``, ``bad`` or ``open``.
        sections: In order.
        facts: Facts for the end of the page.

    Returns:
        The files written, the page first.
    """
    shown, files = draw(sections, lambda slug: page.with_name(f"{page.stem}_{slug}.png"))
    template = templates().get_template("sections.html.j2")
    rendered = template.render(name=name, said=verdict, tone=tone, sections=shown, facts=_facts(facts), **script())
    _write(page, rendered)
    return [page, *files]


def draw(sections: Sequence[Section], place: Callable[[str], Path]) -> tuple[list[_Shown], list[Path]]:
    """Write the figures of ``sections`` to the paths of ``place``; returns what the page shows, and the files."""
    from torchcell.io.cache import atomic_write

    shown, files = [], []
    for section in sections:
        image, figure = b"", ""
        if section.figure is not None:
            try:
                image = _png(section.figure)
                section.figure.set_layout_engine("none")  # its places are known now
                figure = to_svg(section.figure, section.slug)
            except Exception as error:
                shown.append(_show(failed(section.title, error), ""))
                continue
            path = place(section.slug)
            with atomic_write(path) as temporary:
                temporary.write_bytes(image)
            files.append(path)
        shown.append(_show(section, figure))
    return shown, files


def made_or_failed(title: str, make: Callable[[], Sequence[Section]]) -> Sequence[Section]:
    """The sections, or one with the error: a figure that fails must not cost the run its scores."""
    try:
        return make()
    except Exception as error:
        return [failed(title, error)]


def failed(title: str, error: Exception) -> Section:
    """A section with the error, which is logged too."""
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    log.warning("the report lacks %r: %s", title, text, exc_info=error)
    return Section(title, f"Not made: {text}. Scores and predictions are complete.")


def render(
    evaluation: Evaluation,
    results: Results,
    info: Mapping[str, Any],
    shown: Sequence[_Shown],
    alarms: Sequence[str],
    steps: Sequence[Step],
) -> str:
    """The page as HTML; every value is escaped."""
    verdict = evaluation.verdict
    first, others = verdict_parts(evaluation)
    return (
        templates()
        .get_template("template.html.j2")
        .render(
            name=str(info.get("name", results.model)),
            model=results.model,
            verdict=verdict,
            first=first,
            others=others,
            tone=TONES[verdict.color],
            origin=origin(info),
            data=data_words(results, info),
            warnings=alarms,
            steps=steps,
            figure=shown[0],
            blocks=blocks(evaluation),
            sections=shown[1:],
            facts=_facts(info),
            glossary=glossary(evaluation),
            **script(),
        )
    )


def script() -> dict[str, str]:
    """The one script of a page, and the hash by which the page admits it and no other."""
    import importlib.resources

    code = importlib.resources.files("torchcell.report").joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return {"script": code, "script_hash": digest}


def templates() -> jinja2.Environment:
    """The templates of pages; every value that they show is escaped."""
    import jinja2

    loader = jinja2.PackageLoader("torchcell.report", ".")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _write(page: Path, content: str) -> None:
    from torchcell.io.cache import atomic_write

    with atomic_write(page) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _facts(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the facts of a run; nested entries become one line."""
    rows: list[tuple[str, str]] = []
    for key, value in info.items():
        title = key.replace("_", " ")
        if key in _SHOWN_ELSEWHERE or value is None:
            continue
        if isinstance(value, Mapping):
            rows.append((title, ", ".join(f"{inner} {_as_text(entry)}" for inner, entry in value.items())))
        else:
            rows.append((title, _as_text(value)))
    units = info.get("units")
    if units:
        text = ", ".join(f"{k}: {v}" for k, v in units.items()) if isinstance(units, Mapping) else str(units)
        rows.append(("units", text))
    return rows


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value))
    return str(value)


def _show(section: Section, figure: str) -> _Shown:
    table = section.table if section.table is not None else pd.DataFrame()
    return _Shown(
        section.title,
        section.slug,
        section.text,
        section.caption,
        figure,
        0 if section.figure is None else round(section.figure.get_figwidth() * PIXELS_PER_INCH),
        [str(name) for name in table.columns],
        [["" if pd.isna(cell) else _as_text(cell) for cell in row] for row in table.astype(object).to_numpy().tolist()],
    )


def literal(figure: Figure) -> Figure:
    """Show every ``$`` of the figure as it is: TeX would fail on names of genes and drugs with one."""
    from matplotlib.text import Text

    for axes in figure.axes:  # creates the tick labels
        axes.get_xticklabels(), axes.get_yticklabels()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if "\\mathdefault" not in text.get_text():  # powers of ten on a logarithmic axis
            text.set_parse_math(False)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    literal(figure)
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()
