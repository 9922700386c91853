"""The house's rooms: no circle of modules, one noun a file, and names that can be searched for."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.conftest import ROOT

#: rooms that are as they should be; one that is finished joins them
ROOMS = ("prefect_events", "runner", "worker")
LINES, METHODS = 300, 20


def modules() -> dict[str, ast.Module]:
    """Every module of `agent`, by name."""
    files = {path: path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "agent").rglob("*.py"))}
    return {".".join(name.parts).removesuffix(".__init__"): ast.parse(path.read_text()) for path, name in files.items()}


def imports(tree: ast.Module, known: set[str]) -> set[str]:
    """What a module imports of those, for its types alone too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{each.name}" for each in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found & known


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One, where there is any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def in_rooms(name: str) -> bool:
    return name.split(".")[1:2] != [] and name.split(".")[1] in ROOMS


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_module_imports_itself_by_way_of_others():
    trees = modules()
    # a package's docstring imports nothing: what is meant are its modules
    graph = {name: imports(tree, set(trees)) - {name} for name, tree in trees.items() if in_rooms(name)}
    assert circle(graph) == []


def test_a_file_has_one_noun():
    sizes = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for room in ROOMS
        for path in (ROOT / "agent" / room).rglob("*.py")
    }
    assert len(sizes) > 20
    assert {name: lines for name, lines in sizes.items() if lines > LINES} == {}
    methods = {
        f"{name}.{node.name}": sum(isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) for each in node.body)
        for name, tree in modules().items()
        if in_rooms(name)
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    assert {name: count for name, count in methods.items() if count > METHODS} == {}


def test_a_public_class_name_stands_once():
    names = Counter(
        node.name
        for name, tree in modules().items()
        if in_rooms(name)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    others = {
        node.name
        for name, tree in modules().items()
        if not in_rooms(name)
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    assert [name for name, count in names.items() if count > 1] == []
    assert sorted(names.keys() & others) == []


def test_nothing_but_settings_reads_the_environment():
    readers = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in Path(ROOT / "agent" / room).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    ]
    assert readers == []
