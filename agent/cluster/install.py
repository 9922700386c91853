"""Bringing ORC to a scheduler and workers that were started without it.

Nothing is restarted, nothing of theirs is changed.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import distributed
from distributed import Client

from agent.cluster.connect import client_of
from agent.errors import SchedulerError
from agent.scheduler.plugin import Extension

logger = logging.getLogger("orc.install")

#: files of the package that are sent: its code and its pages
SENT = (".py", ".html")


def lacks_orc() -> bool:
    """Runs there: whether this process cannot import ORC."""
    return importlib.util.find_spec("agent") is None


def versions() -> tuple[str, str]:
    """Runs there: Python's minor version, and distributed's."""
    return ".".join(map(str, sys.version_info[:2])), distributed.__version__


async def ensure(address: str, mode: str, allow_untested: bool = False, patience: float = 30.0) -> str:
    """See to it that the scheduler has the extension and its workers can run governed tasks; what was done, in words.

    The package travels as a zip file by Dask's own `upload_file`, which also reaches workers that join later.

    Raises:
        SchedulerError: the scheduler cannot be reached, or has another Python.
    """
    async with client_of(address, patience) as client:
        # what asks there is sent by value: the module is what may be missing
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            return await _ensure(client, address, mode, allow_untested)
        finally:
            cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


async def _ensure(client: Client, address: str, mode: str, allow_untested: bool) -> str:
    done = []
    lacking = [where for where, lacks in (await client.run(lacks_orc, on_error="ignore")).items() if lacks]
    scheduler_lacks = await client.run_on_scheduler(lacks_orc)
    if lacking or scheduler_lacks:
        await _same_python(client, address)
        with tempfile.TemporaryDirectory() as folder:
            await client.upload_file(str(bundle(Path(folder))))
        where = f"{'the scheduler and ' if scheduler_lacks else ''}{len(lacking)} workers"
        done.append(f"sent ORC {_version()} to {where} that had none")
    if not await client.run_on_scheduler(_has_extension):
        await client.register_plugin(Extension(mode=mode, allow_untested=allow_untested))
        done.append("registered the extension on the scheduler")
    said = "; ".join(done) or "everything was there"
    logger.info("%s: %s", address, said)
    return said


def _has_extension(dask_scheduler: Any) -> bool:
    return "orc" in dask_scheduler.plugins


async def _same_python(client: Client, address: str) -> None:
    """Code can only be sent to the Python it was written by."""
    ours = versions()
    theirs = {"the scheduler": await client.run_on_scheduler(versions), **await client.run(versions, on_error="ignore")}
    for where, found in theirs.items():
        if found[0] != ours[0]:
            raise SchedulerError(
                f"{where} of {address} runs Python {found[0]} and this ORC {ours[0]}: it cannot be sent there. "
                f"Run ORC on Python {found[0]}, or install orc-agent=={_version()} there and start the scheduler "
                "with --preload agent.scheduler.preload"
            )


def bundle(folder: Path) -> Path:
    """The package `agent` as a zip file that Python imports from."""
    root = Path(__file__).parent.parent
    path = folder / f"orc_agent_{_version().replace('.', '_')}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(file for file in root.rglob("*") if file.suffix in SENT):
            out.write(file, Path("agent") / file.relative_to(root))
    return path


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("orc-agent")
    except PackageNotFoundError:
        return "0"
