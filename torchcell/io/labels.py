"""Labels of perturbations: which genes one names, and by which name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from torchcell.io.categorical import Categorical
from torchcell.io.ceiling import refuse_wide
from torchcell.io.errors import InputError, some
from torchcell.io.gene_names import MeasuredGenes
from torchcell.io.table_text import BLANKS
from torchcell.io.tables import is_spoiled_name

if TYPE_CHECKING:
    import pandas as pd


JOIN = "+"
"""Between the genes of a label that names several."""
CONTROLS = ("ctrl", "control", "non-targeting")
"""What a request may write beside a gene for nothing else being perturbed, as ``KLF1+ctrl``."""
CONTROL_WORDS = (
    "ctrl", "control", "controls", "non-targeting", "nontargeting", "non_targeting", "nt", "ntc", "negative control",
    "neg_ctrl", "safe-targeting", "unperturbed", "untreated", "wt", "vehicle", "dmso", "mock",
)  # fmt: skip
"""What control cells are called in public data sets."""
NO_LABEL = ("", "nan", "none", "null", "na", "n/a", "<na>", "#n/a")
"""What programs write where a label is missing, in any case."""

ControlLabels = str | int | float | bytes | Sequence[str | int | float | bytes]
"""What control cells are called: one label, or several."""

_SIGN = re.compile(r"\s*[+|]\s*(?=[^\W_]|[(\[{])")
_BYTES = re.compile(r"b(['\"])(.*)\1")


def genes_of(label: str) -> tuple[str, ...]:
    """The names that a label joins, e.g. ``KLF1`` and ``MAP2K6`` of ``KLF1+MAP2K6``.

    A ``+`` or ``|`` joins two names where it stands outside brackets, has a name before it, and a letter, digit or
    opening bracket comes next, with blanks between or without. Anywhere else it belongs to a name.

    Example:
        >>> genes_of("KLF1 + ctrl"), genes_of("(+)-JQ1|CD3+"), genes_of("CD3++ctrl"), genes_of("Na+/K+-ATPase")
        (('KLF1', 'ctrl'), ('(+)-JQ1', 'CD3+'), ('CD3+', 'ctrl'), ('Na+/K+-ATPase',))
    """
    parts, start = [], 0
    for sign in _SIGN.finditer(label):
        name = label[start : sign.start()]
        if name.strip() and _balanced(name):
            parts.append(name.strip())
            start = sign.end()
    return (*parts, label[start:].strip())


def _balanced(name: str) -> bool:
    """Whether every bracket that is opened is closed."""
    return all(name.count(opening) <= name.count(closing) for opening, closing in ("()", "[]", "{}"))


def control_words(control: ControlLabels) -> frozenset[str]:
    """The labels that a user gives for control cells, one or several, in small letters; parts of a label too."""
    several = [control] if isinstance(control, str | int | float | bytes) else list(control)
    labels = label_texts(np.array(several, dtype=object)).tolist()
    return frozenset(name.casefold() for label in labels for name in (label, *genes_of(label)))


def controls_in(values: pd.Series) -> list[str]:
    """The labels of a column that are what control cells are called in public data sets."""
    labels = label_texts(np.asarray(values.drop_duplicates(), dtype=object)).names
    return [label for label in labels.tolist() if label.casefold() in CONTROL_WORDS]


def label_texts(values: Any) -> Categorical:
    """Labels as text [n]: bytes decoded, whole numbers without a fraction, blanks around them gone, none as empty."""
    import pandas as pd

    if isinstance(getattr(values, "dtype", None), pd.CategoricalDtype):
        column = pd.Categorical(values)
        row, different = column.codes, column.categories.to_numpy().astype(object)
    else:
        row, different = pd.factorize(np.asarray(values, dtype=object), use_na_sentinel=True)
    missing = len(different)  # -1 where a label is missing
    texts = ["" if value is None or value != value else _text(value) for value in different.tolist()]
    lengths = [len(text) for text in texts]
    refuse_wide("the labels", len(texts) + 1, max(lengths, default=0), sum(lengths))
    return Categorical.coded([*texts, ""], np.where(row < 0, missing, row))


def _text(value: object) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    printed = _BYTES.fullmatch(text.strip(BLANKS))  # bytes that another program wrote as Python prints them
    return (printed[2] if printed else text).strip(BLANKS)


def read_labels(
    name: str, ids: np.ndarray, labels: Any, controls: Collection[str], is_control: np.ndarray | None = None
) -> tuple[Categorical, np.ndarray, dict[str, int]]:
    """Labels as one names perturbations here: without controls, genes in order.

    Args:
        name: Of the record, for messages.
        ids: Of the samples [n].
        labels: As a file has them, see ``label_texts`` [n].
        controls: Parts of a label that are no genes, in small letters, see ``control_words``.
        is_control: Which samples are controls [n]; none: those whose label has no other part.

    Returns:
        The labels [n], which samples are controls [n], and how many labels changed, by what changed them.

    Raises:
        InputError: Samples without a label, a label that names a gene twice, a date for a gene; all at once.
    """
    labels = Categorical.of(labels)
    different, row = labels.names, labels.codes
    parts = [genes_of(label) for label in different.tolist()]
    left = [tuple(gene for gene in each if gene.casefold() not in controls) for each in parts]
    idle = np.array([not rest or label.casefold() in controls for rest, label in zip(left, different, strict=True)])
    control = idle[row] if is_control is None else is_control
    perturbed = np.isin(np.arange(len(different)), row[~control]) & ~idle
    _refuse_odd(name, ids[~control], row[~control], different, left)
    changed = different.astype(object)
    for i in np.flatnonzero(~idle).tolist():
        changed[i] = JOIN.join(sorted(left[i]))
    words = {part for i, each in enumerate(parts) if idle[i] for part in each}
    plain = {JOIN.join(left[i]) for i in np.flatnonzero(perturbed).tolist()}
    counts = {
        "labels that name a control beside a gene": sum(
            len(left[i]) < len(parts[i]) for i in np.flatnonzero(perturbed).tolist()
        ),
        "labels with the genes of another one in another order": len(plain) - len(set(changed[perturbed])),
        "labels that write a control's in another case": len(words) - len({word.casefold() for word in words}),
    }
    return Categorical.coded(changed, row), control, {what: n for what, n in counts.items() if n}


def _refuse_odd(
    name: str, ids: np.ndarray, row: np.ndarray, labels: np.ndarray, genes: Sequence[tuple[str, ...]]
) -> None:
    """Refuse labels that name no perturbation; ``row`` is the label of each sample that is no control."""
    odd: dict[str, list[int]] = {}
    for i in np.unique(row).tolist():
        if what := _oddity(str(labels[i]), genes[i]):
            odd.setdefault(what, []).append(i)
    problems = []
    for what, at in odd.items():
        of = ids[np.isin(row, at)]
        problems.append(f"{len(of):,} sample(s) with {what}, {some(labels[at])}: {some(of)}")
    if problems:
        raise InputError(f"{name}: {'; '.join(problems)}; correct the labels, or drop these samples")


def _oddity(label: str, genes: tuple[str, ...]) -> str:
    """What is wrong with a label; nothing for one that names a perturbation."""
    if label.casefold() in NO_LABEL:
        return "no perturbation label"
    if len({gene.casefold() for gene in genes}) < len(genes):
        return "a label that names a gene twice"
    if any(is_spoiled_name(gene) for gene in genes):
        return "what a spreadsheet made of a gene's name (SEPTIN2, MARCHF1, ...)"
    if genes and genes_of(JOIN.join(sorted(genes))) != tuple(sorted(genes)):
        return "a label whose signs leave more than one reading"
    return ""


def read_request_labels(
    name: str, rows: np.ndarray, labels: Any, known: MeasuredGenes, trained: Collection[str] = ()
) -> list[str]:
    """Labels of a request by the names that a model knows, read as those of training are [n].

    A part stands for nothing being perturbed where training called its controls so (``trained``, in small letters), or
    where it is one of ``CONTROLS`` and none of the model's genes.

    Raises:
        InputError: As ``read_labels``, and a label of controls alone.
    """
    controls = {word for word in CONTROLS if word not in known.exact}.union(trained)
    read, control, _ = read_labels(name, rows, labels, controls)
    if control.any():
        raise InputError(
            f"{name}: {int(control.sum())} sample(s) that perturb nothing: {some(rows[control])}; name a gene, or "
            "leave them out"
        )
    found = as_measured(read, known)
    refuse_twice(name, rows, read, found)
    return [in_order(label) for label in found.tolist()]


def as_measured(labels: Any, measured: MeasuredGenes) -> Categorical:
    """Labels [n] whose genes bear the names under which they are measured; a gene that is not measured keeps its."""
    return Categorical.of(labels).renamed(
        lambda label: JOIN.join(measured.find(gene) or gene for gene in genes_of(label))
    )


def refuse_twice(name: str, ids: np.ndarray, labels: Any, found: Categorical) -> None:
    """Refuse labels two of whose names turned out to be one gene's; ``found`` has the genes' names [n]."""
    twice = [label for label in found.names.tolist() if len(set(genes_of(label))) < len(genes_of(label))]
    odd = found.isin(twice)
    if odd.any():
        raise InputError(
            f"{name}: {int(odd.sum()):,} sample(s) with a label that names a gene twice, {some(np.unique(labels[odd]))}"
            f" ({some(twice)}): {some(ids[odd])}; correct the labels, or drop these samples"
        )


def ordered(labels: Any) -> Categorical:
    """Labels [n] with their genes in the order of the alphabet, in which ``A+B`` and ``B+A`` are one perturbation."""
    return Categorical.of(labels).renamed(in_order)


def in_order(label: str) -> str:
    """One label with its genes in the order of the alphabet."""
    return JOIN.join(sorted(genes_of(label)))
