"""What `orc doctor` looks at: files, the ledger, the graph, Prefect and the cluster; the findings of each."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence

from agent.cluster.inspect import inspect_cluster
from agent.errors import GraphAwayError, OrcError, SchedulerError
from agent.graph.bolt import Graph, address
from agent.ledger.chains import chains
from agent.model.addresses import without_secrets
from agent.model.pools import Pool
from agent.pools import declared, prices
from agent.services import home
from agent.services.doctor.checks import OF_CLUSTER, Finding, good, some, warning, wrong
from agent.settings import Settings
from rules import schema


def files(settings: Settings) -> tuple[list[Finding], tuple[Pool, ...]]:
    """Pools and rules, and the pools for the other checks."""
    out, pools = [], tuple[Pool, ...]()
    try:
        if settings.pools_declared():
            pools = declared.read(settings.pools, prices.of(settings)).pools
            out.append(good("pools", f"{len(pools)} in {settings.pools}"))
        else:
            out.append(
                warning(
                    "pools",
                    f"{settings.pools} is not there: every worker is of the pool `default`",
                    "orc init --scheduler ADDRESS proposes one",
                )
            )
    except OrcError as error:
        out.append(wrong("pools", str(error), "mend the file; the governor does not start with it"))
    try:
        out.append(good("rules", f"{len(schema.load([settings.rule_files()]).rules)} in {settings.rule_files()}"))
    except schema.RuleError as error:
        out.append(wrong("rules", str(error), "mend the file; the rules in force stay until then"))
    return out, pools


def settings_and_rights(settings: Settings) -> list[Finding]:
    """Where settings come from, who reaches this ORC, and who reads what it keeps."""
    out = []
    if by_file := settings.by_file():
        out.append(
            warning("settings", by_file, "the environment wins over it; ORC_ENV_FILE names another file, or none")
        )
    if settings.allow_open_host and settings.host not in ("127.0.0.1", "localhost"):
        out.append(
            warning(
                "host",
                f"the services listen on {settings.host} (ORC_ALLOW_OPEN_HOST=true)",
                "there is no TLS yet: whoever reaches the Dask scheduler or a worker runs code as you; keep others out",
            )
        )
    if not settings.home.exists():
        return [*out, good("rights", f"{settings.home} is not there yet; `orc up` makes it for you alone")]
    if found := home.open_to_others(settings.home):
        what = f"others may read or change {some([str(path) for path in found])}"
        return [*out, wrong("rights", what, f"chmod -R go= {settings.home}; `orc up` does it too")]
    return [*out, good("rights", f"{settings.home} is for you alone")]


def ledger(settings: Settings) -> Finding:
    """Does it answer, and what has it? One that is not there yet is not begun by looking."""
    try:
        found = {chain.name: chain.records for chain in chains(settings.ledger())}
    except OrcError as error:
        return wrong(
            "ledger", str(error), "nothing is decided without a ledger; a governor that runs goes on with its spool"
        )
    at, name = without_secrets(settings.ledger()), settings.chain_name()
    if not found:
        return good("ledger", f"there is none yet in {at}; `orc up` begins it")
    if name in found:
        return good("ledger", f"{found[name]} records of {name} in {at}")
    return good("ledger", f"none of {name} yet in {at}; it has those of {some(sorted(found))}")


def graph(settings: Settings) -> Finding:
    """Does it answer?"""
    try:
        with Graph(address(settings)) as there:
            return good("graph", there.server())
    except GraphAwayError as error:
        return warning(
            "graph",
            str(error),
            "placement goes on without it, and it catches up; flows that load a graph fail until then",
        )
    except OrcError as error:
        return wrong("graph", str(error), "check ORC_GRAPH_URL, ORC_GRAPH_USER and ORC_GRAPH_PASSWORD")


def prefect(variables: Mapping[str, str]) -> Finding:
    """Does Prefect's server answer, and does it know us?

    Args:
        variables: PREFECT_API_URL, and PREFECT_API_AUTH_STRING or PREFECT_API_KEY where it asks for one.
    """
    url, auth, key = (variables.get(f"PREFECT_API_{name}") for name in ("URL", "AUTH_STRING", "KEY"))
    if not url:
        return warning(
            "Prefect",
            "PREFECT_API_URL is not set",
            'each Dask worker would start a server of its own; eval "$(orc env)", or set it',
        )
    request = urllib.request.Request(url.rstrip("/") + "/admin/version")
    if auth or key:
        said = f"Basic {base64.b64encode(auth.encode()).decode()}" if auth else f"Bearer {key}"
        request.add_header("Authorization", said)
    try:
        with urllib.request.urlopen(request, timeout=5):
            return good("Prefect", f"{url} answers")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return wrong(
                "Prefect",
                f"{url} answers, and asks for another password",
                'eval "$(orc env)", or set PREFECT_API_AUTH_STRING; without it no flow can report',
            )
        return wrong("Prefect", f"{url} answers {error.code}", "check PREFECT_API_URL")
    except (OSError, ValueError) as error:
        return wrong("Prefect", f"{url} does not answer: {error}", "is the server up, and PREFECT_API_URL right?")


def diagnose(
    settings: Settings, scheduler: str | None, variables: Mapping[str, str], modules: Sequence[str]
) -> list[Finding]:
    """Every check that can be made.

    Args:
        scheduler: its address, where one is named.
        variables: those by which flows reach Prefect's server.
        modules: what workers must be able to import, beside what ORC needs.
    """
    out, pools = files(settings)
    out += [*settings_and_rights(settings), ledger(settings), graph(settings)]
    out.append(prefect(variables))
    if scheduler is None:
        return [
            *out,
            warning("scheduler", "none is named", "orc doctor --scheduler tcp://HOST:PORT, or set ORC_SCHEDULER"),
        ]
    try:
        cluster = inspect_cluster(scheduler, ("prefect", "prefect_dask", "agent", *modules))
    except SchedulerError as error:
        return [*out, wrong("scheduler", str(error), "nothing else of the cluster can be checked")]
    out.append(good("scheduler", f"{scheduler} answers"))
    for check in OF_CLUSTER:
        out += check(cluster, pools)
    return out
