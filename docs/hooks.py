"""Hooks of mkdocs: the README becomes the first page, and a reference of all names is added.

Called only by mkdocs.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page unchanged, except for the two generated ones, and for links out of the site."""
    source = page.file.src_path
    if source == "index.md":
        # Links in the README are relative to the repository's root.
        markdown = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    if source == "reference.md":
        markdown += reference()
    # Files outside the site are named, and not linked.
    return re.sub(r"\[([^\]]+)\]\((?:\.\./[^)]*|[A-Z]+(?:\.md)?)\)", r"\1", markdown)


def on_page_content(html: str, page: Any, files: Any, **_: Any) -> str:
    """Resolves a notebook's links to other pages; mkdocs itself does so only in Markdown."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def followed(found: re.Match[str]) -> str:
        path = posixpath.join(posixpath.dirname(page.file.src_uri), found[1])
        target = files.get_file_from_path(posixpath.normpath(path))
        if target is None:
            raise PluginError(f"{page.file.src_uri}: the link {found[1]} leads nowhere")
        return f'href="{target.url_relative_to(page.file)}{found[2]}"'

    return re.sub(r'href="([^":#]+\.(?:md|ipynb))((?:#[^"]*)?)"', followed, html)


def reference() -> str:
    """A line for mkdocstrings for each public name, grouped by room."""
    import tfrobust

    rooms: dict[str, list[str]] = {}
    for name, place in sorted(tfrobust._PLACES.items()):
        if name not in (*tfrobust._ROOMS, *_TABLES):
            rooms.setdefault(place.split(".")[1], []).append(f"{place}.{name}")
    parts = []
    for room, names in rooms.items():
        parts.append(f"\n## {room}\n")
        parts += [f"\n::: {name}\n" for name in names]
    return "".join(parts)


_TABLES = ("ATTACKS", "BACKBONES", "DATASETS", "EXPLAINERS", "METHODS")
