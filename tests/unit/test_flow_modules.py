"""What lies beside a script, and what a worker makes of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.worker import flow_modules
from agent.worker.flow_modules import FlowModules, SourceFiles, beside, provide


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    flow_modules._here.clear()


def _script(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "script.py"


def test_modules_and_packages_beside_a_script_are_found_and_no_other_folders(tmp_path: Path) -> None:
    script = _script(tmp_path, script="", helper="A = 1", data__notes="")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    assert beside(str(script)).tops == ("helper", "script", "shop")


def test_a_script_in_a_package_has_the_packages_neighbours_beside_it(tmp_path: Path) -> None:
    script = _script(tmp_path / "shop", script="")
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "helper.py").touch()
    assert beside(str(script)).tops == ("helper", "shop")


def test_a_cell_has_what_lies_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path, helper="A = 1")
    monkeypatch.chdir(tmp_path)
    assert beside("<stdin>").tops == ("helper",)


def test_what_is_too_large_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(tmp_path, script="", helper="A = 1" + " " * 100)
    monkeypatch.setattr(flow_modules, "MOST", 50)
    assert beside(str(script)) == SourceFiles(too_large=True)


def _provided(sources: SourceFiles, digest: str, folder: Path) -> bool:
    asked: list[str] = []

    def fetch(name: str) -> bytes:
        asked.append(name)
        return sources.packed()

    provide(FlowModules(digest=digest, name="at", tops=sources.tops), fetch, folder)
    return bool(asked)


def test_a_worker_takes_what_it_lacks_and_a_changed_file_in_place_of_the_old(tmp_path: Path) -> None:
    one, two = SourceFiles(files={"orc_beside.py": b"A = 1"}), SourceFiles(files={"orc_beside.py": b"A = 2"})
    assert _provided(one, "one", tmp_path)
    assert importlib.import_module("orc_beside").A == 1
    assert not _provided(one, "one", tmp_path)
    assert _provided(two, "two", tmp_path)
    assert importlib.import_module("orc_beside").A == 2


def test_a_worker_that_has_them_all_is_left_as_it_is(tmp_path: Path) -> None:
    assert not _provided(SourceFiles(files={"json.py": b"raise SystemExit"}), "own", tmp_path)
    assert str(tmp_path) not in " ".join(sys.path)
