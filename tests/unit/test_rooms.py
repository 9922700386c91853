"""The house's rooms: no circle of modules, one noun a file, and names that can be searched for."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from harness.processes import ROOT

LINES, METHODS = 300, 20
#: files that are larger, with the reason; the list is to get shorter
LARGER = {
    "agent/governor/governor.py": "the composition of a round, a few lines over",
    "agent/simulate/workflows/simulation.py": "one simulated world's loop",
    "agent/simulate/long_job/peers/skynomad.py": "a published policy, kept together as it was published",
}
#: classes with more methods, with the reason
WITH_MORE_METHODS = {
    "agent.simulate.workflows.world.World": "everything that may happen in a simulated world",
}


@functools.cache
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


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_module_imports_itself_by_way_of_others():
    trees = modules()
    # a package's docstring imports nothing: what is meant are its modules
    assert circle({name: imports(tree, set(trees)) - {name} for name, tree in trees.items()}) == []


def test_a_file_has_one_noun():
    files = [path for root in ("agent", "rules", "flows") for path in (ROOT / root).rglob("*.py")]
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert len(sizes) > 200
    assert {name for name, lines in sizes.items() if lines > LINES} == set(LARGER)
    methods = {
        f"{name}.{node.name}": sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
        for name, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    assert {name for name, count in methods.items() if count > METHODS} == set(WITH_MORE_METHODS)


def test_a_public_class_name_stands_once():
    names = Counter(
        node.name
        for tree in modules().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_words_of_the_glossary_are_used():
    """Each word of the glossary stands in the place that is named, and the place is there."""
    rows = re.findall(
        r"^\| \*(.+?)\* \| .+ \| (?:`(.+?)`|later) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 40
    for word, place in rows:
        if not place:
            continue
        path = ROOT / place.replace(".", "/")
        files = list(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        text = "\n".join(file.read_text() for file in files).lower().replace("_", " ")
        assert word.lower() in text or word.lower().replace(" ", "") in text.replace(" ", ""), (word, place)


#: rooms whose settings are all read in `settings.py`
ROOMS = ("prefect_events", "runner", "worker", "state", "api", "ledger", "planner", "model")


def test_nothing_but_settings_reads_the_environment():
    readers = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in Path(ROOT / "agent" / room).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    ]
    assert readers == []


#: what of distributed opens a connection
CONNECTS = {"Client", "rpc", "connect", "get_client"}


def test_only_the_room_for_it_connects_to_a_dask_scheduler():
    """The rooms that live in a scheduler or worker speak by the connections that Dask has made."""
    found = set()
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "distributed":
                found |= {name} if CONNECTS & {each.name for each in node.names} else set()
            elif isinstance(node, ast.Attribute) and node.attr in CONNECTS and ast.unparse(node.value) == "distributed":
                found.add(name)
    assert {name for name in found if not name.startswith("agent.cluster.")} == set()
    assert "agent.cluster.connect" in found
