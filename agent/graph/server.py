"""`python -m agent.graph.server PORT`: the embedded graph server (ArcadeDB) as a process, its store under ORC_HOME."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import threading
from dataclasses import asdict

from agent.graph.bolt import Address, said_of
from agent.processes import atomic_file, bootstrap, ports
from agent.settings import Settings, load

logger = logging.getLogger("orc.graph")

DATABASE, USER = "orc", "root"


def serve(settings: Settings, port: int, stopping: threading.Event) -> None:
    """Serve Bolt until `stopping` is set. A store keeps its first password, which graph.json keeps for it."""
    from arcadedb_embedded import create_database
    from arcadedb_embedded.server import ArcadeDBServer

    home = settings.home.absolute()
    old = said_of(home)
    at = Address(
        url=f"bolt://{settings.host}:{port}",
        user=USER,
        password=old.password if old else secrets.token_urlsafe(18),
        database=DATABASE,
    )
    # before the store is made, or a crash in between would leave a store whose password nobody knows
    file = home / "graph.json"
    atomic_file.write(file, json.dumps(asdict(at)))
    (home / "graph").mkdir(exist_ok=True)
    users = home / "graph" / "config" / "server-users.jsonl"
    if old is None and users.exists():
        # nobody knows its password any more; the data are not locked by it
        logger.warning("%s was lost: the graph's root gets a new password", file)
        users.unlink()
    # it writes its logs beside where it stands
    os.chdir(home / "graph")
    # the JVM leaves SIGTERM to us (-Xrs), or nobody would act on it
    jvm = {"heap_size": settings.graph.heap, "jvm_args": "-Xrs"}
    # before anybody can connect, or the first to come would find no database
    store = home / "graph" / "databases" / DATABASE
    if not store.exists():
        create_database(str(store), jvm_kwargs=jvm).close()
    server = ArcadeDBServer(
        root_path=str(home / "graph"),
        root_password=at.password,
        config={
            "server_plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
            "bolt_port": port,
            "http_port": ports.free(settings.host),
            "host": settings.host,
            "mode": "production",
        },
        jvm_kwargs=jvm,
    )
    server.start()
    try:
        logger.info("the graph is at %s", at.url)
        # the signal may reach a thread of the JVM: its handler then runs only when this thread wakes
        while not stopping.wait(0.2):
            pass
    finally:
        server.stop()


def _main() -> None:
    stopping = threading.Event()
    bootstrap.on_signals(stopping.set)
    serve(load(), int(sys.argv[1]), stopping)


def main() -> None:
    """Entry point; the Bolt port is the only argument."""
    bootstrap.run("orc.graph", _main)


if __name__ == "__main__":
    main()
