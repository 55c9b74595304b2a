"""Open a page in a real browser without a screen: a picture of it, what its scripts complain of, whether it overflows.

``python scripts/look.py runs/NAME/report.html report.png --width 1280 --dark`` needs the extra ``browser``
(``pip install -e '.[browser]'``): Qt's WebEngine, which is Chromium. The last line is JSON: ``errors`` of the console,
``overflow`` in pixels beyond the window, ``answer`` of ``--script``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

SECONDS = 60
"""After this the page counts as not loaded."""
SETTLED_MS = 1500
"""Time from the last script to the picture."""
MEASURE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def look(page: Path, picture: Path | None, size: tuple[int, int], dark: bool, script: str) -> dict[str, object]:
    """Open ``page`` at ``size`` pixels, run ``script``, save ``picture``; see the module."""
    quiet = {"QT_QPA_PLATFORM": "offscreen", "QSG_RHI_BACKEND": "software", "QT_QUICK_BACKEND": "software"}
    flags = "--no-sandbox --disable-gpu --log-level=3"  # no sandbox: a page of our own, often as root in a container
    for key, value in {**quiet, "QTWEBENGINE_CHROMIUM_FLAGS": flags}.items():
        os.environ.setdefault(key, value)
    from PySide6.QtCore import Qt, QTimer, QUrl
    from PySide6.QtWebEngineCore import QWebEnginePage
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    application = QApplication(sys.argv[:1])
    application.styleHints().setColorScheme(Qt.ColorScheme.Dark if dark else Qt.ColorScheme.Light)
    seen: dict[str, object] = {"loaded": False, "errors": []}

    class Page(QWebEnginePage):
        def javaScriptConsoleMessage(self, level, message, line, source):
            seen["errors"].append(f"{message} ({source}:{line})")

    view = QWebEngineView()
    view.setPage(Page(view))
    view.resize(*size)
    view.show()

    def finish() -> None:
        if picture is not None:
            view.grab().save(str(picture))
        application.quit()

    def loaded(well: bool) -> None:
        seen["loaded"] = well
        view.page().runJavaScript(MEASURE, 0, lambda pixels: seen.update(overflow=pixels))
        view.page().runJavaScript(script, 0, lambda answer: seen.update(answer=answer))
        QTimer.singleShot(SETTLED_MS, finish)

    view.loadFinished.connect(loaded)
    view.load(QUrl.fromLocalFile(str(page.resolve())))
    QTimer.singleShot(SECONDS * 1000, application.quit)
    application.exec()
    return seen


def main() -> None:
    """Read the command line, look, print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path, nargs="?", help="PNG file to write")
    parser.add_argument("--width", type=int, default=1280, help="pixels (1280)")
    parser.add_argument("--height", type=int, default=1000, help="pixels (1000)")
    parser.add_argument("--dark", action="store_true", help="as a reader who prefers dark pages")
    parser.add_argument("--script", default="0", help="JavaScript to run; its value is printed as answer")
    given = parser.parse_args()
    print(json.dumps(look(given.page, given.picture, (given.width, given.height), given.dark, given.script)))


if __name__ == "__main__":
    main()
