"""mkdocs' hooks: pages from outside of docs/, links to what lies there, formulas, the diagram.

The pages are written for readers of the repository, with links such as ../droppath/SPEC.md. Here
each link leads to the page that the file becomes, or to a copy of it in files/.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.diagram import diagram
from website.formulas import mathml

ROOT = Path(__file__).parents[1]
PAGES = {
    "droppath/SPEC.md": "spec.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")  # the target of [text](target#anchor)
CLAUSE = re.compile(r"^### ([A-Z]+-\d+)  (.*?)( · .*)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Say how ```math, ```mermaid and `#!math` are shown."""
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [
            {"name": "math", "class": "formula", "format": _block_formula},
            {"name": "mermaid", "class": "diagram", "format": _diagram},
        ]
    }
    config.mdx_configs["pymdownx.inlinehilite"] = {
        "custom_inline": [{"name": "math", "class": "formula", "format": _inline_formula}]
    }


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages from outside of docs/, and every file that a page links to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for file in files.documentation_pages():
        for target in LINK.findall(file.content_string):
            path = _repository_path(file, target)
            place = _place(path)
            new = place.startswith("files/") and files.get_file_from_path(place) is None
            if new and (ROOT / path).is_file():
                files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to the site's own places, and name the headings of clauses by their ids."""

    def led(link: re.Match[str]) -> str:
        place = _place(_repository_path(page.file, link[0]))
        return posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")

    markdown = LINK.sub(led, markdown)
    return CLAUSE.sub(_heading, markdown) if page.file.src_uri == "spec.md" else markdown


def _heading(clause: re.Match[str]) -> str:
    """Return the heading of a clause with its id as the anchor; contents leave its status out."""
    label = f"{clause[1]} {clause[2]}".replace('"', "&quot;")
    return f'{clause[0]} {{: #{clause[1]} data-toc-label="{label}" }}'


def _repository_path(file: File, target: str) -> str:
    """Return the path, from the repository's root, that a link of a page's source leads to."""
    source = next((s for s, page in PAGES.items() if page == file.src_uri), f"docs/{file.src_uri}")
    return os.path.normpath(posixpath.join(posixpath.dirname(source), target))


def _place(path: str) -> str:
    """Return where a file of the repository lies in the site."""
    inside = path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"
    return PAGES.get(path, inside)


def _block_formula(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="formula">{mathml(source, "block")}</div>'


def _inline_formula(source: str, *_: Any) -> str:
    return mathml(source)


def _diagram(source: str, *_: Any, **__: Any) -> str:
    return diagram(source)
