"""The pages can be trusted: links lead somewhere, words are those of the glossary, what is named exists."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [
    *DOCS,
    ROOT / "README.md",
    *sorted((ROOT / "notes").glob("*.md")),
    *sorted((ROOT / "experiments").glob("*/*.md")),
]
GLOSSARY = ROOT / "docs" / "concepts" / "glossary.md"
OLD = "## Old words"

WITH_OTHER_MEANINGS = {
    "read", "_read", "Process", "Against", "deal", "admit", "response()", "origin()", "reference()", "pull",
    "Conditions", "lost", "ties", "walks", "way", "set", "kind", "line", "unit",
}  # fmt: skip
"""Old words that are also good English, or the name of something else: a machine can't tell which is meant."""
ROOMS = ("core", "evaluation", "report", "nn", "graph", "training/distributed")
"""Shared packages whose names, docstrings and messages are free of the old words below."""
OLD_IN_CODE = (
    "told", "asked", "asked_for", "dealt", "twin", "twin_keys", "spoilt", "lever", "headline", "planted", "rival", "guard",
    "n_units", "refuse_held", "hard split",
)  # fmt: skip
COLUMN = '"n_units"'
"""The one that stays: a column of ``metrics.csv``, which users have."""
BRITISH = r"\b\w*(neighbour|colour|behaviour|centre|normalis|regularis|factoris|optimis|standardis|summaris)\w*"
OUTSIDE = r"\.\./shared|/work/|/home/|\b[Ii]ssues? #?\d|\bpypi\b|https?://(?!doi\.org|arxiv\.org)"
NAMED_FOLDERS = r"(?:conf|docs|experiments|notes|scripts|tests|torchcell)/[\w./*-]*"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_code(text: str) -> str:
    """The text with fenced blocks, inline code and a notebook's head blanked; lines keep their numbers."""
    text = re.sub(r"\A---\n.*?\n---\n", lambda found: "\n" * found[0].count("\n"), text, flags=re.S)
    text = re.sub(r"^```.*?^```$", lambda found: "\n" * found[0].count("\n"), text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub and MyST name them."""
    found: set[str] = set()
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for heading in re.findall(r"^#{1,6} +(.+?) *$", plain, flags=re.M):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        number = 0
        while (name := slug if not number else f"{slug}-{number}") in found:
            number += 1
        found.add(name)
    return found


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """Relative links of a page that lead to no file, to no heading, or out of the repository."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        missing = not file.is_relative_to(root) or not file.exists()
        if missing or (anchor and (file.suffix != ".md" or anchor not in anchors(file.read_text()))):
            broken.append(target)
    return broken


def old_words() -> list[str]:
    """The left column of the glossary's table of old words, as far as a machine can look for them."""
    table = GLOSSARY.read_text().partition(OLD)[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell) if word not in WITH_OTHER_MEANINGS]


def found_words(text: str, words: list[str]) -> list[str]:
    """Which of the words a text holds, in the plural too, each at the line where it stands first."""
    found = []
    for word in words:
        match = re.search(rf"(?<!\w){re.escape(word)}s?(?!\w)", text, re.I if word.islower() else re.NOFLAG)
        if match:
            found.append(f"{word} (line {text[: match.start()].count(chr(10)) + 1})")
    return found


def prose(page: Path) -> str:
    """A page without the table of old words."""
    text = page.read_text()
    return text.partition(OLD)[0] if page == GLOSSARY else text


def dotted_names() -> list[str]:
    """Every ``torchcell.x.y`` that the pages of ``docs`` name."""
    texts = [prose(page) for page in DOCS]
    return sorted({name for text in texts for name in re.findall(r"\btorchcell(?:\.[A-Za-z_]\w*)+", text)})


def resolve(name: str) -> object:
    """The module or the attribute of a module that a dotted name means."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        for attribute in parts[n:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def named_paths() -> Iterator[tuple[str, str]]:
    """Files and folders of the repository that the pages of ``docs`` name, with the page; NAME stands for any."""
    for page in DOCS:
        for path in re.findall(rf"`({NAMED_FOLDERS})`", prose(page)):
            yield name_of(page), re.sub(r"\b[A-Z]{4,}\b(?!\.md)", "*", path)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_no_old_word_stands_in_docs(page):
    assert found_words(prose(page), old_words()) == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_old_word_stands_in_the_shared_rooms(room):
    files = sorted((ROOT / "torchcell" / room).rglob("*.py"))
    texts = {name_of(file): file.read_text().replace(COLUMN, "").replace("``n_units``", "") for file in files}
    assert files
    assert {name: found for name, text in texts.items() if (found := found_words(text, list(OLD_IN_CODE)))} == {}


def test_no_old_word_stands_in_the_readme():
    assert found_words((ROOT / "README.md").read_text(), list(OLD_IN_CODE)) == []


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_docs_are_in_american_spelling(page):
    assert re.findall(BRITISH, prose(page), re.I) == []


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_docs_point_at_nothing_outside_the_repository(page):
    assert re.findall(OUTSIDE, page.read_text()) == []


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_a_page_has_one_title_and_no_html(page):
    plain = without_code(page.read_text())
    assert len(re.findall(r"^# ", plain, re.M)) == 1
    assert plain.lstrip().startswith("# ")
    assert re.findall(r"<[A-Za-z/!][^>]*>", plain) == []


def test_the_index_names_every_page():
    index = ROOT / "docs" / "concepts" / "index.md"
    linked = set(re.findall(r"\]\(([\w-]+\.md)", index.read_text()))
    assert linked == {page.name for page in index.parent.glob("*.md")} - {"index.md"}


def test_every_old_word_has_a_new_one_and_the_ambiguous_ones_are_in_the_table():
    table = GLOSSARY.read_text().partition(OLD)[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] == "| `"]
    assert len(rows) > 25
    assert [row for row in rows if len(row) != 2 or not row[1]] == []
    assert {word for word in WITH_OTHER_MEANINGS if f"`{word}`" not in table} == set()


@pytest.mark.parametrize("name", dotted_names())
def test_every_module_that_docs_name_imports(name):
    assert resolve(name) is not None


def test_every_path_that_docs_name_exists():
    assert [(page, path) for page, path in named_paths() if not any(ROOT.glob(path.rstrip("/")))] == []


def test_these_checks_see_what_is_wrong(tmp_path):
    (tmp_path / "there.md").write_text("# A user's tables\n\n## `b` and c\n\n## `b` and c\n")
    page = tmp_path / "page.md"
    good = ["there.md", "there.md#a-users-tables", "there.md#b-and-c-1", "#page", "mailto:a@b.c"]
    bad = ["gone.md", "there.md#b", "#other", "../../outside.md"]
    page.write_text("# Page\n" + "".join(f"[x]({target})\n" for target in good + bad) + "`[x](in-code.md)`\n")
    assert broken_links(page, tmp_path) == bad
    assert found_words("one\nTwo Rivals met; untold; pearson_delta", ["rival", "told", "pearson_de"]) == [
        "rival (line 2)"
    ]
    assert found_words("Shares, shares", ["Share"]) == ["Share (line 1)"]
    assert {"told", "rivals", "metaedge", "twin_keys", "pearson_de", "graph term"} <= set(old_words())
    assert resolve("torchcell.__version__")
    assert resolve("pathlib.Path.name") is not None
    with pytest.raises((ModuleNotFoundError, AttributeError)):
        resolve("torchcell.no_such_module")
