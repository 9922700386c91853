"""Starting PostgreSQL, Neo4j and the embedded graph; None where one cannot be had."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import GraphAwayError, GraphError, GraphRefusedError
from agent.graph.bolt import Address, Graph, said_of
from harness.processes import MARK, ROOT, Processes, free_port
from harness.wait import until

SERVICES = Path(os.environ.get("ORC_TEST_SERVICES", ROOT / ".services"))
PASSWORD = "eight-or-more"


@dataclass(slots=True)
class Postgres:
    """A PostgreSQL of the session. `stop` and `start` pull its plug and put it back."""

    url: str
    start: Callable[[], None]
    stop: Callable[[], None]
    folder: Path

    def database(self, name: str) -> str:
        """A new, empty database; its SQLAlchemy URL."""
        import psycopg

        with psycopg.connect(self.url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as db:
            db.execute(f'CREATE DATABASE "{name}"')
        return self.url.rsplit("/", 1)[0] + "/" + name


def postgres(folder: Path) -> Postgres | None:
    """PostgreSQL with its data in a folder; call `stop` at the end."""
    found = shutil.which("initdb") or next(
        (str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None
    )
    if found is None:
        return None
    programs, port, data = Path(found).parent, free_port(), folder / "data"
    user: dict[str, object] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        for above in folder.parents:
            if above.stat().st_uid == 0 and above != Path("/") and not above.stat().st_mode & 0o001:
                above.chmod(above.stat().st_mode | 0o011)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def call(*arguments: str) -> None:
        done = subprocess.run(
            arguments,
            cwd="/",
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                **({MARK: os.environ[MARK]} if MARK in os.environ else {}),
            },
            check=False,
            **user,
        )  # type: ignore[call-overload]
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c shared_buffers=32MB -c fsync=off"
    call(f"{programs}/initdb", "-D", str(data), "-U", "orc", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync")

    def start() -> None:
        # its output must not keep our pipe open
        quiet = f"{programs}/pg_ctl -D {data} -l {folder}/log -w -t 60 -o '{options}' start >/dev/null 2>&1"
        call("/bin/sh", "-c", quiet)

    def stop() -> None:
        call(f"{programs}/pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")

    start()
    return Postgres(f"postgresql+psycopg://orc@127.0.0.1:{port}/postgres", start, stop, folder)


def neo4j(processes: Processes, folder: Path, more: Mapping[str, str] | None = None) -> Address | None:
    """Neo4j Community as a process of its own, where its jars were fetched; `more` goes to its neo4j.conf."""
    if not (SERVICES / "neo4j" / "fetched").exists():
        return None
    home_java = os.environ.get("JAVA_HOME")
    java = (
        f"{home_java}/bin/java"
        if home_java and Path(home_java, "bin/java").exists()
        else shutil.which("java") or "java"
    )
    port, jars = free_port(), SERVICES / "neo4j" / "lib"
    (folder / "conf").mkdir(parents=True, exist_ok=True)
    said = {
        "server.default_listen_address": "127.0.0.1",
        "server.default_advertised_address": "127.0.0.1",
        "server.bolt.listen_address": f"127.0.0.1:{port}",
        "server.http.enabled": "false",
        "server.https.enabled": "false",
        "server.memory.pagecache.size": "128m",
        "dbms.usage_report.enabled": "false",
        "internal.dbms.bolt.netty_server_shutdown_quiet_period": "0",
        **(more or {}),
    }
    (folder / "conf/neo4j.conf").write_text("".join(f"{k}={v}\n" for k, v in said.items()))
    opened = [
        f"--add-opens={package}=ALL-UNNAMED"
        for package in ("java.base/java.nio", "java.base/java.io", "java.base/sun.nio.ch")
    ]
    process = processes.run(
        java,
        "-Xms64m",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        *opened,
        "-Dlog4j2.disable.jmx=true",
        "-cp",
        f"{jars}/*",
        "org.neo4j.server.CommunityEntryPoint",
        f"--home-dir={folder}",
        f"--config-dir={folder}/conf",
        "--console-mode",
        name="neo4j",
    )
    first = Address(url=f"bolt://127.0.0.1:{port}", user="neo4j", password="neo4j", database="system")

    def ready() -> bool:
        """Neo4j is up and has our password."""
        assert process.poll() is None, "Neo4j ended; see its log"
        try:
            with Graph(first) as graph:
                graph.run("ALTER CURRENT USER SET PASSWORD FROM 'neo4j' TO $new", new=PASSWORD)
        except GraphAwayError:
            return False
        except GraphRefusedError:
            return True
        return True

    until(ready, 180, 0.3)
    at = Address(url=first.url, user="neo4j", password=PASSWORD)

    def serves() -> bool:
        """The database answers."""
        try:
            with Graph(at) as graph:
                return bool(graph.read("RETURN 1 AS one"))
        except GraphAwayError:
            return False

    until(serves, 60, 0.3)
    return at


def embedded(processes: Processes, home: Path) -> Address:
    """The embedded graph server in a process of its own."""
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    process = processes.start("agent.graph.server", str(port), name="graph", env={"ORC_HOME": str(home)})

    def serves() -> Address | None:
        """The embedded graph answers."""
        assert process.poll() is None, "the graph server ended; see its log"
        at = said_of(home)
        if at is None:
            return None
        try:
            with Graph(at) as graph:
                graph.read("RETURN 1 AS one")
        except GraphError:  # not up, or its database is not made yet
            return None
        return at

    found: Address = until(serves, 60, 0.2)
    return found
