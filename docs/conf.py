"""Sphinx: the site that ``make docs`` builds, from the tree that ``scripts/build_docs.py`` assembles."""

from __future__ import annotations

from typing import Any

import torchcell

project = "torchcell"
author = "The torchcell developers"
version = release = torchcell.__version__
project_copyright = author

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_math_renderer = "plain"
root_doc = "README"
exclude_patterns = ["build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 6  # as GitHub names them
suppress_warnings = [
    "myst.header",  # a note may go from # to ###
    "toc.not_included",  # notes and studies are reached from their lists
]

nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_output_stderr = "remove"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = f"torchcell {version}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"show_navbar_depth": 1, "use_download_button": False, "home_page_in_toc": True}


def setup(app: Any) -> None:
    """Show formulas as they are written: the usual renderer would be loaded from elsewhere."""
    from docutils.nodes import SkipNode

    def write(tag: str) -> Any:
        def visit(translator: Any, node: Any) -> None:
            translator.body.append(f"<{tag}><code>{translator.encode(node.astext())}</code></{tag}>")
            raise SkipNode

        return visit

    app.add_html_math_renderer("plain", (write("span"), None), (write("pre"), None))
