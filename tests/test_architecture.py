"""The order of the rooms: imports run one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tfrobust"

# A room may import only from rooms above it.
ROOMS = (
    "errors", "io", "typing", "tables", "chance", "progress", "runtime", "settings", "plugins",
    "config", "run", "figures", "distribution", "workers", "l1_projection", "threat_model",
    "data", "backbones", "models", "cluster", "attacks", "training", "checks", "evaluation",
    "radii", "sets", "explain", "export", "callbacks", "testing", "serving", "report", "search",
    "jobs", "cli", "__main__",
)  # fmt: skip


def nodes(path: Path, *, checked_only: bool) -> Iterator[ast.AST]:
    """All of a file's syntax; without `checked_only` that of checkers is left out."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += [*(node.body if checked_only else ()), *node.orelse]
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    # The protocols speak of what is built on them: for checkers alone, nothing is imported.
    for node in nodes(path, checked_only=path.name != "typing.py"):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "tfrobust":
                names = [f"tfrobust.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith(("pipelines", "tests", "benchmarks")):
                rooms.add(name)
            elif name.startswith("tfrobust."):
                rooms.add(name.split(".")[1])
    return rooms


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    allowed = {*ROOMS[: ROOMS.index(room)], room}
    assert imported_rooms(path) <= allowed


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_files(path: Path, known: frozenset[str]) -> set[str]:
    """The files that a file imports when it runs, also those of its functions' imports."""
    found = set()
    for node in nodes(path, checked_only=False):
        if isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
    return found - {name_of(path)}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Names that import one another in turn; empty where there are none."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for other in sorted(imports[name]):
            if found := follow(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(imports) if (found := follow(name, []))), [])


def test_no_files_import_each_other_in_a_circle():
    # The face of the package imports each public name when it is first used.
    paths = {name_of(path): path for path in FILES if path != PACKAGE / "__init__.py"}
    known = frozenset(paths)
    assert circle({name: imported_files(path, known) for name, path in paths.items()}) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_the_modules_of_verbs_import_the_command_line_alone():
    for path in (PACKAGE.parent / "pipelines").rglob("*.py"):
        assert imported_rooms(path) <= {"cli", "jobs"}, path


def test_only_the_runtime_imports_tensorflow():
    def imports(path):
        # What checkers alone read costs no import.
        for node in nodes(path, checked_only=False):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or ""

    heavy = ("tensorflow.", "tf_keras.", "keras", "neural_structured_learning")
    for path in FILES:
        for name in imports(path):
            root = name.split(".")[0]
            assert root not in ("tensorflow", "keras", "neural_structured_learning"), path
            assert not name.startswith(heavy), path


def test_every_package_holds_a_table_of_its_plug_ins():
    from tfrobust.attacks import ATTACKS
    from tfrobust.backbones import BACKBONES
    from tfrobust.data import DATASETS, FORMATS
    from tfrobust.data.corruptions import CORRUPTIONS
    from tfrobust.explain import EXPLAINERS
    from tfrobust.figures import FIGURES
    from tfrobust.training import METHODS

    for table in (
        ATTACKS, BACKBONES, CORRUPTIONS, DATASETS, FORMATS, EXPLAINERS, FIGURES, METHODS,
    ):  # fmt: skip
        for name in table:
            assert callable(table[name]) or hasattr(table[name], "name"), name
