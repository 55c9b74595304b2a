"""Ceilings: how much memory a small file may ask for, looked up before any of it is taken.

A compressed file of some kilobytes can say that it holds gigabytes. What is asked for is compared with what the file
has on disk, and refused in one line where it is out of proportion; ``TORCHCELL_MOST_GB`` sets another ceiling.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchcell.io.errors import InputError, some

GB = 2**30
VARIABLE = "TORCHCELL_MOST_GB"
"""Of the environment: the most gigabytes that one file may unpack to."""
USUAL = GB // 4
"""Bytes that any file may unpack to; its cells as objects of Python take ten times as much."""
RATIO = 100
"""By how much more a file may unpack than it has on disk; text is packed to a tenth, tables of zeros to a fiftieth."""
MOST_VALUES = 10**7
"""Values in the lists and dictionaries of a file of torch, each counted as often as it stands there."""
SMALL = 2**26
"""Bytes up to which a tensor may repeat stored numbers."""
DEEPEST = 60
"""Lists within lists of such a file."""
NAMED_BY_TORCH = re.compile(
    r"collections (OrderedDict|Counter)|torch (Size|device|\w+Storage|b?float\d+|u?int\d+|bool|complex\d+)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
"""What our files of torch are made of. ``weights_only=True`` admits more, such as ``bytearray(10**12)`` and codecs that
double a text."""


def ceiling(stored: int) -> int:
    """The bytes that a file of ``stored`` bytes may unpack to."""
    given = os.environ.get(VARIABLE)
    if not given:
        return max(USUAL, RATIO * stored)
    try:
        return int(float(given) * GB)
    except ValueError:
        raise InputError(f"{VARIABLE}={given}: must be a number of gigabytes") from None


def refuse_bomb(path: str | Path, wanted: int, stored: int, what: str = "what it holds", at_once: bool = False) -> None:
    """Raise where a file asks for more memory than goes with its size, or than there is.

    Args:
        path: Of the file.
        wanted: Bytes that it asks for.
        stored: Bytes that it has on disk.
        what: Asks for them.
        at_once: Whether they will be in memory together, as those of a text, which can't be read in parts.

    Raises:
        InputError: How much it is, and how to allow it.
    """
    if at_once and wanted > max(USUAL, stored) and not os.environ.get(VARIABLE):
        import psutil

        free = psutil.virtual_memory().available
        if wanted > free / 2:
            raise InputError(
                f"{path}: {what} would take {wanted / GB:,.1f} GB, and this machine has {free / GB:,.1f} GB free; "
                f"nothing of it was read. Use a larger machine, or set {VARIABLE}={int(wanted / GB) + 1}"
            )
    if wanted > ceiling(stored):
        raise InputError(
            f"{path}: {what} would take {wanted / GB:,.1f} GB, and the file has {stored / 2**20:,.1f} MB; a file like "
            f"this may be made to fill the memory, and nothing of it was read. If it is right, set {VARIABLE}="
            f"{int(wanted / GB) + 1}"
        )


LETTER = 4
"""Bytes of a letter in an array of texts, where each text is as wide as the longest."""


def refuse_wide(what: str, n: int, longest: int, stored: int) -> None:
    """Raise where one long text would widen all texts of an array beyond what goes with them.

    Args:
        what: Of what the texts are, e.g. ``column 'genes'``.
        n: Texts in the array.
        longest: Letters of the longest.
        stored: Bytes that they have as they are.

    Raises:
        InputError: How long it is.
    """
    if n * longest * LETTER > ceiling(stored):
        raise InputError(
            f"{what}: a text of {longest:,} letters stands among {n:,}, and all would take its room, "
            f"{n * longest * LETTER / GB:,.1f} GB; no name is so long: shorten it, or leave its row out"
        )


def gunzip(path: str | Path) -> bytes:
    """The content of a gzip file, up to the ceiling.

    Raises:
        InputError: It is damaged, or holds more.
    """
    import gzip
    import zlib

    path, found, size = Path(path), [], 0
    stored = path.stat().st_size
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 24):
                size += len(block)
                refuse_bomb(path, size, stored, "what it unpacks to", at_once=True)
                found.append(block)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} can't be decompressed: {error}; copy it again") from error
    return b"".join(found)


def refuse_npz_bomb(path: str | Path) -> None:
    """Raise where the arrays of an ``.npz`` are larger than goes with it, or other than their headers say.

    Raises:
        InputError: Such a file; zipfile's and numpy's own errors for one that is damaged.
    """
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        refuse_bomb(path, sum(member.file_size for member in members), Path(path).stat().st_size, "its arrays", True)
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            size = dtype.itemsize
            for length in shape:
                size *= length
            if not dtype.hasobject and size > member.file_size:  # objects are refused where they are read
                raise InputError(
                    f"{path} is damaged: {member.filename} says that it holds {size:,} bytes, and has less"
                )


def refuse_torch_bomb(path: str | Path, how: str = "") -> None:
    """Raise where a file of torch has compressed members, or calls what torchcell's never do while it is loaded.

    Args:
        path: Of the file.
        how: What to do about a pickled object.

    Raises:
        InputError: Such a file, or one that is no zip, which is how torch writes since 2020.
    """
    import pickletools

    import torch

    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            if file.seek(0) or file.read(4) != b"PK\x03\x04":  # torch would read a pickle before the zip
                raise zipfile.BadZipFile("no zip from its first byte on")
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
        # By torch's own reader: another one may find another member of this name.
        values, wanted = b"", 0
        if not packed:
            reader: Any = torch._C.PyTorchFileReader(str(path))
            wanted = sum(reader.get_record_size(name) for name in reader.get_all_records())
            values = reader.get_record("data.pkl") if wanted <= os.path.getsize(path) else b""
        named = [str(value) for op, value, _ in pickletools.genops(values or b".") if op.name in ("GLOBAL", "INST")]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        why = str(error).split("\n")[0]
        raise InputError(f"{path} cannot be read; it is truncated or no torch file: {why}") from error
    if wanted > os.path.getsize(path):
        raise InputError(
            f"{path} holds members that share their bytes and would take {wanted / GB:,.1f} GB; torch writes no "
            "such file, and nothing of it was read"
        )
    if packed:
        raise InputError(
            f"{path} holds compressed members ({packed[0]!r}), which torch never writes and which could fill the "
            "memory; nothing of it was read"
        )
    if odd := sorted({name for name in named if not NAMED_BY_TORCH.fullmatch(name)}):
        raise InputError(
            f"{path} holds a pickled object, which is never loaded since it can run code or fill the memory: "
            f"{some(odd)}{how and f'; {how}'}"
        )


def refuse_large_values(path: str | Path, content: Any) -> None:
    """Raise where what was read of a file of torch takes far more than it has: lists that hold one another many times,
    or tensors that repeat few stored numbers.

    Raises:
        InputError: Such values.
    """
    _count(path, content, {}, 0)


def _count(path: str | Path, node: Any, known: dict[int, int], depth: int) -> int:
    import torch

    if isinstance(node, torch.Tensor):
        if node.layout != torch.strided:
            raise InputError(f"{path} holds a tensor that is {node.layout}, which torchcell never writes")
        if node.numel() * node.element_size() > max(node.untyped_storage().nbytes(), SMALL):
            raise InputError(
                f"{path} holds a tensor of shape {list(node.shape)} made of {node.untyped_storage().nbytes():,} bytes, "
                "which could fill the memory; nothing of it was used"
            )
        return 1
    if not isinstance(node, Mapping | list | tuple):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # of one that holds itself
        parts = [*node.keys(), *node.values()] if isinstance(node, Mapping) else node
        known[id(node)] = 1 + sum(_count(path, part, known, depth + 1) for part in parts)
    if known[id(node)] > MOST_VALUES or depth > DEEPEST:
        raise InputError(f"{path} holds lists within lists of more than {MOST_VALUES:,} values, and was not used")
    return known[id(node)]
