"""Figures as SVG inside a page, where names of points show under the pointer."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

from torchcell.io.errors import readable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_NAMES: WeakKeyDictionary[Artist, tuple[str, ...]] = WeakKeyDictionary()
_STYLE = {"stroke-linejoin": "round", "stroke-linecap": "butt"}
"""What Matplotlib sets for the whole document, which on a page is for one figure."""


def name_points(artist: Artist, names: Sequence[str]) -> None:
    """Give the points of a scatter, or of a line with markers, the texts that a reader sees by pointing at them.

    Args:
        artist: What ``Axes.scatter`` or ``Axes.plot`` drew; all its points lie within the figure.
        names: A text a point, in their order.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure()
        >>> name_points(figure.subplots().scatter([1, 2], [3, 4]), ["YAL001C", "YAL002W"])
        >>> 'data-name="YAL002W"' in to_svg(figure, "example")
        True
    """
    _NAMES[artist] = tuple(map(readable, names))


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an ``svg`` element, without namespaces, scripts, styles or addresses of its own.

    Args:
        figure: The figure.
        name: Unique on the page; ids within the element begin with it.
    """
    import matplotlib

    named = {f"{name}-points-{i}": one for i, one in enumerate(figure.findobj(lambda one: one in _NAMES))}
    for identity, artist in named.items():
        artist.set_gid(identity)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    for identity, artist in named.items():
        _write_names(root, identity, _NAMES[artist])
    return _cleaned(root, name)


def _write_names(root: ElementTree.Element, identity: str, names: Sequence[str]) -> None:
    """Set ``data-name`` on each point of a group; none where their number differs, as of points outside the figure."""
    for group in root.iter("g"):
        if group.get("id") == identity:
            # A few points are paths of their own, and many are uses of one path.
            for points in (list(group.iter("use")), group.findall("path")):
                if len(points) == len(names):
                    for point, text in zip(points, names, strict=True):
                        point.set("data-name", text)
                    break


def _cleaned(root: ElementTree.Element, name: str) -> str:
    """The element as text: ids that something refers to, made unique on the page; neither metadata nor styles."""
    for parent in list(root.iter()):
        for child in [one for one in parent if one.tag in ("metadata", "style")]:
            parent.remove(child)
    content = ElementTree.tostring(root, encoding="unicode")
    meant = set(re.findall(r"""(?:url\(|href=")#([\w-]+)""", content))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in meant:
            element.set("id", f"{name}-{identity}")
        for key, value in element.attrib.items():
            if key == "href" and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value and key != "data-name":
                element.set(key, value.replace("url(#", f"url(#{name}-"))
    for key in ("version", "width", "height"):
        root.attrib.pop(key, None)
    root.attrib.update(_STYLE)
    return ElementTree.tostring(root, encoding="unicode")
