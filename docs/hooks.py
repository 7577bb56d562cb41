"""What the site takes from elsewhere: the README as its first page, and a reference of all names.

mkdocs calls these; nothing else does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page as it is, but for the two that are made, and for links out of the site."""
    source = page.file.src_path
    if source == "index.md":
        # Links of the README are from the repository's root.
        markdown = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    if source == "reference.md":
        markdown += reference()
    # What lies outside the site is named, and not linked.
    return re.sub(r"\[([^\]]+)\]\((?:\.\./[^)]*|[A-Z]+(?:\.md)?)\)", r"\1", markdown)


def reference() -> str:
    """A line for mkdocstrings for each public name, by the room that it is of."""
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
