"""The documentation site, without a network: assemble the pages, build them with warnings as errors, check every link.

``python scripts/build_docs.py`` writes ``build/docs``; open ``build/docs/index.html``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
SITE, OUT = ROOT / "build" / "site", ROOT / "build" / "docs"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs", "notes", "experiments")
"""What the site is made of; links between pages lead where they do in the repository."""
FILES = (".md", ".csv", ".png", ".svg", ".sh", ".yaml", ".txt", ".py", ".cff")
ALSO = ("LICENSE", "CITATION.cff", "Makefile", "pyproject.toml", "constraints.txt", "conf")
"""What pages link to as files."""


CONTENTS = {
    "Start": ("docs/install", "docs/quickstart", "docs/tutorials/index", "docs/how-to/index"),
    "Understand": ("docs/concepts/index", "docs/benchmarks/index", "notes/README"),
    "Look up": ("docs/reference/index", "Glossary <docs/concepts/glossary>"),
    "The project": ("CONTRIBUTING", "CHANGELOG", "docs/citation"),
}
"""The navigation: what home, which is the README, leads to."""


# What is made of other files ------------------------------------------------------------------------------------------


def configuration(conf: Path) -> str:
    """The configuration reference: every key of every file with its default and its comment."""
    parts = [
        "# Configuration",
        "",
        "Made from the comments of `conf`. A key is set on the command line (`trainer.max_epochs=5`), or as a string "
        "of `tc.fit`; a file of a folder is chosen by its name (`model=dango`). `--cfg job` prints what a command "
        "comes to.",
    ]
    files = sorted(conf.rglob("*.yaml"), key=lambda path: (len(path.relative_to(conf).parts) > 1, path))
    group = None
    for path in files:
        name = path.relative_to(conf)
        if name.parts[0] == "hydra":
            continue
        if name.parent != group:
            group = name.parent
            parts += ["", f"## {group if group.parts else 'The commands'}"]
        text = path.read_text(encoding="utf-8")
        own = len(name.parts) == 1 or path.stem == "search" or text.startswith("# @package _global_")
        parts += ["", f"### {name.with_suffix('')}", "", *described(text, "" if own else f"{name.parts[0]}.")]
    return "\n".join(parts) + "\n"


def described(text: str, prefix: str = "") -> list[str]:
    """The comments at the head of a YAML file, and a table of its keys, which the config has below ``prefix``."""
    about: list[str] = []
    rows: list[tuple[str, str, str]] = []
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        if line.startswith("hydra:"):
            break
        if not rows and line.startswith("#") and not line.startswith("# @package"):
            about.append(line.lstrip("# "))
            continue
        found = re.fullmatch(r"( *)(- )?([\w@/.*~ -]+?):(?: +(.*?))?(?: +# ?(.*))?", line)
        if found is None or found[3].startswith("override ") or (found[2] and not found[1]):
            continue
        depth = len(found[1]) + len(found[2] or "")
        above = [*((at, key) for at, key in above if at < depth), (depth, found[3].strip("'\""))]
        value, comment = found[4] or "", found[5] or ""
        if value.startswith("#"):
            value, comment = "", value.lstrip("# ")
        if comment or (value and not found[3].startswith("_")):
            rows.append((prefix + ".".join(key for _, key in above), value, comment))
    rows = [row for row in rows if not row[0].startswith(f"{prefix}defaults")]
    table = [f"| `{key}` | {code(value)} | {cell(comment)} |" for key, value, comment in rows]
    head = ["| key | default | what it is |", "|---|---|---|"] if table else []
    return [plain(" ".join(about)), "", *head, *table]


def code(text: str) -> str:
    """A text in the table's type for code; empty stays empty."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def cell(text: str) -> str:
    """A text as one cell of a table."""
    return plain(text).replace("|", "\\|")


def plain(text: str) -> str:
    """A comment as text that Markdown shows as it is."""
    return re.sub(r"([*_<\[\]{}$])", r"\\\1", text)


SHOWN = 5
"""Metrics of a table."""


def study(folder: Path) -> str:
    """The tables of a study, rendered from its CSVs, each with the date and commit of its file."""
    title = re.sub(r"^# +", "", (folder / "README.md").read_text(encoding="utf-8").split("\n")[0])
    parts = [f"# {title}: tables", "", f"What they show: [the study](../../experiments/{folder.name}/README.md)."]
    for path in sorted(folder.rglob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        name = path.relative_to(folder)
        link = f"../../experiments/{folder.name}/{name}"
        parts += ["", f"## {name}", "", f"{last_change(path)} {len(rows):,} rows: [the file]({link}).", ""]
        parts += scores(rows) if {"system", "metric", "value", "level"} <= set(rows[0]) else whole(rows)
    return "\n".join(parts) + "\n"


def last_change(path: Path) -> str:
    """Date and commit of a file."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%cs, commit %h.", "--", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def scores(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Means over runs: a table an experiment, split and cell line, a row a system."""
    means = [row for row in rows if row["level"] in ("mean", "mean_over_lines")]
    over_lines = {row["experiment"] for row in means if row["level"] == "mean_over_lines"}
    kept = [row for row in means if row["experiment"] not in over_lines or row["level"] == "mean_over_lines"]
    keys = ("experiment", "config", "split_method", "cell_line", "part")
    blocks: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in kept:
        block = blocks.setdefault(tuple(row.get(key) or "" for key in keys), {})
        block.setdefault(row["system"], {})[row["metric"]] = numbers(row)
    for names, systems in blocks.items():
        metrics = list(dict.fromkeys(metric for values in systems.values() for metric in values))[:SHOWN]
        yield from ("", f"**{plain(', '.join(name for name in names if name))}**", "")
        yield f"| system | {' | '.join(map(plain, metrics))} |"
        yield "|---" * (len(metrics) + 1) + "|"
        for system, values in systems.items():
            yield f"| {plain(system)} | {' | '.join(values.get(metric, '') for metric in metrics)} |"
    verdicts = dict.fromkeys(row.get("verdict") or "" for row in rows if row["level"] == "difference")
    if any(verdicts):
        yield from ("", *(f"- {plain(verdict)}" for verdict in verdicts if verdict))


def numbers(row: dict[str, str]) -> str:
    """Value and interval of a row."""
    value, low, high = (row.get(key) or "" for key in ("value", "low", "high"))
    if not value:
        return "undefined"
    interval = f" \\[{float(low):.3f}, {float(high):.3f}\\]" if low and high else ""
    return f"{float(value):.3f}{interval}"


def whole(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """A small table as it is."""
    yield f"| {' | '.join(map(plain, rows[0]))} |"
    yield "|---" * len(rows[0]) + "|"
    for row in rows:
        yield f"| {' | '.join(cell(short(value)) for value in row.values())} |"


def short(text: str) -> str:
    """A number to four digits; any other text as it is."""
    try:
        return text if re.fullmatch(r"-?\d+", text) else f"{float(text):.4g}"
    except ValueError:
        return text


# Assembling, building, checking ---------------------------------------------------------------------------------------


def assemble() -> None:
    """Copy the pages, keeping their places, and write those that are made of other files; remove what is gone."""
    before, kept = {path for path in SITE.rglob("*") if path.is_file()}, set()

    def put(path: Path, content: bytes) -> None:
        """Write a file where its content is another: what did not change is not read again."""
        kept.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)

    for name in (*PAGES, *ALSO):
        source = ROOT / name
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and (path.suffix in FILES or not path.suffix) and "__pycache__" not in path.parts:
                put(SITE / path.relative_to(ROOT), path.read_bytes())
    home = (ROOT / "README.md").read_text(encoding="utf-8")
    made = {"README.md": home + "".join(map(contents, CONTENTS))}
    made |= {"docs/reference/configuration.md": configuration(ROOT / "conf")}
    studies = sorted(path.parent for path in (ROOT / "experiments").glob("*/README.md"))
    made |= {f"docs/benchmarks/{folder.name}.md": study(folder) for folder in studies}
    for name, text in made.items():
        put(SITE / name, text.encode())
    for path in before - kept:
        path.unlink()


def contents(caption: str) -> str:
    """One block of the navigation."""
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *CONTENTS[caption], "```", ""])


class Links(HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            if name in ("href", "src") and value and tag in ("a", "img", "link", "script", "source"):
                self.targets.append(value)
                self.loaded |= {value} if tag != "a" else set()


def broken(folder: Path) -> list[str]:
    """Links within the site that lead nowhere, and files that a page loads from elsewhere."""
    folder = folder.resolve()
    pages = {path: Links(path) for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts}
    wrong = []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in links.loaded and parts.scheme != "data":
                    wrong.append(f"{page.relative_to(folder)}: loads {target}")
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file() or (
                parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].places
            ):
                wrong.append(f"{page.relative_to(folder)}: {target}")
    return wrong


def code_hash() -> str:
    """Of the package and its configs: what notebooks gave with other code is not shown again."""
    files = sorted([*(ROOT / "torchcell").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site; leave with 1 on a warning or a broken link."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    shutil.rmtree(OUT, ignore_errors=True)  # a page that is gone would stay
    assemble()
    cache, notebooks = ROOT / "build" / "docs-cache", f"notebooks-{code_hash()}"
    for old in cache.glob("notebooks-*"):
        if old.name != notebooks:
            shutil.rmtree(old)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", str(ROOT / "docs")]
    command += [
        "-d",
        str(cache / "doctrees"),
        "-D",
        f"nb_execution_cache_path={cache / notebooks}",
        str(SITE),
        str(OUT),
    ]
    if code := subprocess.run(command, check=False).returncode:
        return code
    shutil.copyfile(OUT / "README.html", OUT / "index.html")
    if wrong := broken(OUT):
        print(*wrong, f"{len(wrong)} broken link(s)", sep="\n", file=sys.stderr)
        return 1
    print(f"{len(list(OUT.rglob('*.html')))} pages: {OUT / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
