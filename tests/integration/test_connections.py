"""A worker is cut off from the scheduler, or stands still: its task comes back with the cause and ends once."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path

import pytest

from agent.model.events import TaskReady, WorkerLeft
from harness.cluster import worker as start_worker
from harness.processes import free_port
from harness.wait import until
from tests.integration.conftest import Cluster, Governor

pytestmark = pytest.mark.real


class Proxy:
    """Passes TCP connections on to a port, until it is told otherwise."""

    def __init__(self, target: int) -> None:
        self.target, self.port, self.passes = target, free_port(), True
        self._writers: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection, both ways, and refuse new ones."""
        self._loop.call_soon_threadsafe(self._close)

    def drop(self) -> None:
        """Swallow what comes, both ways, without a word."""
        self.passes = False

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        self._server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self.port))
        self._loop.run_forever()

    def _close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, here]
        await asyncio.gather(self._pass(reader, here), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if self.passes:
                    writer.write(data)
        except OSError:
            pass
        if self.passes:
            writer.close()


@pytest.fixture(scope="module")
def silent(module_processes):
    """A scheduler that gives a silent worker up as soon as Dask can, and a safe worker."""
    made = Cluster(module_processes, "silent", DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="2s")
    made.add("safe-0")
    yield made
    made.client.close()


def body(folder: str) -> int:
    """Stands still the first time, until it is let go. How often it began."""
    mark, gone = Path(folder) / "ran", Path(folder) / "go"
    with mark.open("a") as file:
        file.write("x")
    began = len(mark.read_text())
    while began == 1 and not gone.exists():
        time.sleep(0.05)
    return began


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("cut", "its connection to the scheduler broke"),
        ("dropped", "it was not heard for too long"),
        ("stopped", "it was not heard for too long"),
    ],
)
def test_a_task_whose_worker_is_cut_off_comes_back_and_ends_once(silent, processes, tmp_path, what, why):
    proxy = Proxy(int(silent.address.rsplit(":", 1)[1]))
    name = f"spot-{what}"
    worker = start_worker(processes, f"tcp://127.0.0.1:{proxy.port}", name, "--no-nanny", log=f"silent-{name}")
    try:
        until(lambda: name in silent.names(), 60)
        governor = Governor(silent, {"spot": 1, "safe": 1})
        future = silent.client.submit(body, str(tmp_path), pure=False)
        (key,) = governor.ready(1)
        assert governor.bind("spot", key) != [None]
        # a file is there before what was written to it: a worker stopped in between would leave no trace of its run
        until(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").read_text() == "x")
        before = time.monotonic()
        {"cut": proxy.cut, "dropped": proxy.drop, "stopped": lambda: worker.send_signal(signal.SIGSTOP)}[what]()
        until(lambda: governor.ended(key) == ["lost"], 40)
        assert time.monotonic() - before < 30
        assert [d.why for d in governor.deltas if isinstance(d, WorkerLeft)] == [why]
        until(lambda: governor.keys(TaskReady).count(key) == 2)
        assert governor.bind("safe", key) != [None]
        assert future.result(30) == 2
        if what == "stopped":
            worker.send_signal(signal.SIGCONT)
        (tmp_path / "go").touch()
        if what != "dropped":
            # it learns that it was given up, and ends without a second result
            until(lambda: worker.poll() is not None, 60)
        assert governor.ended(key) == ["lost", "done"]
    finally:
        worker.kill()
        worker.wait()
        proxy.close()


def once(folder: str, n: int) -> int:
    """Says that it ran."""
    with (Path(folder) / str(n)).open("a") as file:
        file.write("x")
    return n


def test_a_small_result_of_a_spot_worker_has_a_copy_and_outlives_it(processes, tmp_path):
    cluster = Cluster(processes, "copied", DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__START="False")
    try:
        cluster.add("safe-0")
        cluster.add("spot-0")
        governor = Governor(cluster, {"spot": 4, "safe": 1}, unsafe=("spot",))
        futures = cluster.client.map(once, [str(tmp_path)] * 4, range(4), pure=False)
        large = cluster.client.submit(bytes, 1_000_000, pure=False)
        keys = governor.ready(5)
        governor.bind("spot", *keys, ahead=10)
        until(lambda: all(future.done() for future in (*futures, large)))
        until(lambda: all(len(cluster.client.who_has(futures)[f.key]) == 2 for f in futures))
        assert len(cluster.client.who_has([large])[large.key]) == 1
        cluster.kill("spot-0")
        assert cluster.client.gather(futures) == [0, 1, 2, 3]
        assert [(tmp_path / str(n)).read_text() for n in range(4)] == ["x"] * 4
        until(lambda: governor.keys(TaskReady).count(large.key) == 2)  # held again
    finally:
        cluster.client.close()
