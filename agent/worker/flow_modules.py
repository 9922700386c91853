"""Python files that lie beside a flow's script: workers that do not have them get them with the flow's first task.

By content, as the extension travels: a file that changed is another one, and takes the place of the old.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
import threading
import zlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import TaskError

#: bytes of source that travel, at most; and while packages come along that the flow's process has not loaded
MOST, FEW = 4 * 2**20, 512 * 1024
#: folders that are no part of a package
_NO_SOURCE = {"node_modules", "site-packages", "__pycache__"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowModules:
    """What lies beside a script, as a task names it."""

    #: of the content
    digest: str
    #: where in the scheduler's metadata, below `payload.PLACE`
    name: str
    #: what can be imported from there
    tops: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFiles:
    """Files beside a script: path from there → content."""

    files: dict[str, bytes] = field(default_factory=dict)
    #: their bytes are too many to travel
    too_large: bool = False

    @property
    def tops(self) -> tuple[str, ...]:
        """Names that can be imported from them."""
        return tuple(sorted({path.split("/")[0].removesuffix(".py") for path in self.files}))

    def packed(self) -> bytes:
        """As bytes; equal when the files are."""
        return zlib.compress(pickle.dumps(sorted(self.files.items())), 6)


#: of the task that this worker's thread runs, for the tasks below it
current_modules: ContextVar[FlowModules | None] = ContextVar("orc_modules", default=None)


# ---------------------------------------------------------------------- in the flow's process
def beside(script: str) -> SourceFiles:
    """What lies beside a script.

    Beside a cell of a notebook or what came by standard input, what lies in the working folder.

    Modules there, and packages of which a module is loaded; other packages too while all of it is small: a body may
    import them.
    """
    root = _root(script)
    if root is None:
        return SourceFiles()
    loaded = {name.split(".")[0] for name, module in list(sys.modules.items()) if _lies_in(module, root)}
    loaded -= {"agent", "__main__"}
    files = {path.name: path.read_bytes() for path in sorted(root.glob("*.py")) if path.stem.isidentifier()}
    more: dict[str, bytes] = {}
    for folder in sorted(path.parent for path in root.glob("*/__init__.py")):
        if folder.name.isidentifier() and folder.name != "agent":
            _add(files if folder.name in loaded else more, root, folder)
    for name in sorted(loaded):
        # a package without __init__
        if (root / name).is_dir() and not any(path.startswith(f"{name}/") for path in files):
            _add(files, root, root / name)
    if _size(files) > MOST:
        return SourceFiles(too_large=True)
    return SourceFiles(files=files if _size(files) + _size(more) > FEW else files | more)


def _root(script: str) -> Path | None:
    """The folder from which the script's own imports begin; None where its modules were installed."""
    path = Path(script)
    folder = path.absolute().parent if path.is_file() else Path.cwd()
    while (folder / "__init__.py").exists():
        folder = folder.parent
    installed = {"site-packages", "dist-packages"} & set(folder.parts)
    return None if installed or folder == folder.parent else folder


def _lies_in(module: Any, root: Path) -> bool:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return isinstance(file, str) and Path(file).is_relative_to(root) and "site-packages" not in file


def _add(files: dict[str, bytes], root: Path, folder: Path) -> None:
    size = _size(files)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NO_SOURCE and not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if path.suffix == ".py" and size <= MOST:
                files[path.relative_to(root).as_posix()] = content = path.read_bytes()
                size += len(content)


def _size(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))


# ---------------------------------------------------------------------- on the worker
#: digest → where its files are in this process; None: nothing of it was lacking
_here: dict[str, tuple[Path | None, tuple[str, ...]]] = {}
#: held while code is read, too: two flows may have modules of one name
lock = threading.RLock()


def provide(modules: FlowModules | None, fetch: Callable[[str], bytes | None], folder: Path) -> None:
    """See to it that this process can import them. What it has of its own is left as it is, and comes first.

    Args:
        fetch: their files, by the name of where they are.
        folder: of the worker's own, to put them.
    """
    if modules is None or modules.digest in _here:
        return
    for digest, (_, tops) in list(_here.items()):
        if set(tops) & set(modules.tops):
            _forget(digest)
    place: Path | None = None
    if any(_lacks(top) for top in modules.tops) and (data := fetch(modules.name)) is not None:
        place = folder / "orc-modules" / modules.digest
        for path, content in pickle.loads(zlib.decompress(data)):
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(content)
        sys.path.append(str(place))
        importlib.invalidate_caches()
    _here[modules.digest] = place, modules.tops


def _lacks(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is None
    except (ImportError, ValueError):
        # ValueError: it is loaded, and has no spec
        return top not in sys.modules


def _forget(digest: str) -> None:
    """Another content has taken their place."""
    place, _ = _here.pop(digest)
    if place is None:
        return
    sys.path[:] = [path for path in sys.path if path != str(place)]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{place}/"):
            del sys.modules[name]
    importlib.invalidate_caches()


def lacking(error: ModuleNotFoundError, task: str) -> TaskError:
    """What to do about a module that a task needs and its worker lacks."""
    return TaskError(
        f"task {task!r}: its worker cannot import the module {error.name!r}. Put it beside the flow's script "
        "(what lies there travels with the flow), install it where the workers run, or start them with "
        "PYTHONPATH=FOLDER_OF_IT"
    )
