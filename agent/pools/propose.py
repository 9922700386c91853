"""A first pools.yaml for a running cluster, from what its workers show.

Pure: workers in, text and what could not be known out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.cluster.inspect import SeenWorker
from agent.model.pools import DEFAULT, Selector, pool_of
from agent.model.units import show_mib

_GPU = re.compile(r"^(gpus?|cuda)$", re.IGNORECASE)
_SPOT = re.compile(r"spot|preempt", re.IGNORECASE)
_NUMBER = re.compile(r"[-_.]?\d+$")


@dataclass(slots=True, kw_only=True)
class Proposal:
    """Workers that look alike, as a pool."""

    name: str
    workers: list[SeenWorker]
    selector: Selector
    #: how the selector was found, in words
    because: str = ""
    gpus: int = 0
    spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """Pools for every worker that can be told apart, and what a person has to say."""

    pools: tuple[Proposal, ...]
    #: workers that no selector tells apart: they are `default`, observed and unrestricted
    left: tuple[SeenWorker, ...]
    unknown: tuple[str, ...]


def propose(workers: Sequence[SeenWorker]) -> Proposed:
    """Group workers by size, resources and name; find for each group a selector that matches it and nobody else.

    Selectors are tried from the one most likely to match workers that join later: what resources they offer, how they
    are named, how many threads they have, where they stand.
    """
    alike: dict[tuple[object, ...], list[SeenWorker]] = defaultdict(list)
    for worker in sorted(workers, key=lambda w: w.address):
        alike[(_stem(worker), worker.resources, worker.nthreads, worker.memory_mib)].append(worker)
    made: list[Proposal] = []
    left: list[SeenWorker] = []
    for group in alike.values():
        found = _selector(group, [w for w in workers if w not in group])
        if found is None:
            left += group
            continue
        selector, because = found
        made.append(
            Proposal(
                name=_name(group, {p.name for p in made}),
                workers=group,
                selector=selector,
                because=because,
                gpus=round(next((amount for name, amount in group[0].resources if _GPU.match(name)), 0)),
                spot=any(_SPOT.search(text) for text in (group[0].name, *(n for n, _ in group[0].resources))),
            )
        )
    return Proposed(pools=tuple(made), left=tuple(left), unknown=tuple(_unknown(made, left)))


def _stem(worker: SeenWorker) -> str:
    """The part of a name that workers of a pool share; "" when the name is an address or a mere number."""
    if worker.name == worker.address or "://" in worker.name or worker.name.isdigit():
        return ""
    return _NUMBER.sub("", worker.name)


def _selector(group: Sequence[SeenWorker], others: Sequence[SeenWorker]) -> tuple[Selector, str] | None:
    first = group[0]
    tries: list[tuple[Selector, str]] = []
    if first.resources:
        names = ", ".join(name for name, _ in first.resources)
        tries.append((Selector(resources=first.resources), f"the resources they offer ({names})"))
    if stem := _stem(first):
        tries.append((Selector(name=f"{stem}*"), f"their names ({stem}…)"))
    tries.append((Selector(nthreads=first.nthreads), f"their {first.nthreads} threads"))
    if stem and first.resources:
        tries.append((Selector(name=f"{stem}*", resources=first.resources), "their names and resources"))
    if stem:
        tries.append((Selector(name=f"{stem}*", nthreads=first.nthreads), "their names and threads"))
    if len({worker.host for worker in group}) == 1:
        tries.append((Selector(host=first.host), f"their host ({first.host})"))
    for selector, because in tries:
        if all(_matches(selector, worker) for worker in group) and not any(_matches(selector, w) for w in others):
            return selector, because
    return None


def _matches(selector: Selector, worker: SeenWorker) -> bool:
    said = {"name": worker.name, "host": worker.host, "resources": dict(worker.resources), "nthreads": worker.nthreads}
    return pool_of((("it", selector),), **said) == "it"  # type: ignore[arg-type]


def _name(group: Sequence[SeenWorker], taken: set[str]) -> str:
    first = group[0]
    words = [_stem(first), *(name for name, _ in first.resources), f"{first.nthreads}-threads"]
    name = re.sub(r"[^a-z0-9-]+", "-", next(word for word in words if word).lower()).strip("-") or "workers"
    if name == DEFAULT:
        name = "workers"
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


def _unknown(made: Sequence[Proposal], left: Sequence[SeenWorker]) -> list[str]:
    out = []
    for pool in made:
        guess = "spot, by its name" if pool.spot else "on-demand, since nothing says otherwise"
        out.append(f"{pool.name}: whether its machines may be taken away: taken as {guess}")
        if not pool.workers[0].memory_mib:
            out.append(f"{pool.name}: its memory: the workers have no limit; say what one may use")
    if made:
        out.append("what a worker costs an hour: no scheduler knows")
        out.append("how many there may be: they are observed, not launched, so `max` is what is there now")
    if left:
        names = ", ".join(worker.name for worker in left[:5])
        out.append(
            f"{len(left)} workers ({names}{', …' if len(left) > 5 else ''}) show nothing that others do not: "
            "they stay in the pool "
            "`default`; start them with a --name or --resources of their own to tell them apart"
        )
    return out


def text(proposed: Proposed, address: str, prices: Mapping[str, str]) -> str:
    """The pools.yaml; a price that nobody said is left open, and ORC refuses the file until it is said."""
    lines = [
        f"# Pools of the Dask cluster at {address}, proposed from what its workers show.",
        "# A pool is a selector over live workers: none is restarted or changed, "
        "and one that joins later is matched in the same way.",
        *(f"# not known: {line}" for line in proposed.unknown),
        "pools:" if proposed.pools else "pools: {}",
    ]
    for pool in proposed.pools:
        first = pool.workers[0]
        price = prices.get(pool.name)
        gpus = f", gpus: {{count: {pool.gpus}}}" if pool.gpus else ""
        memory = show_mib(first.memory_mib) if first.memory_mib else "4 GiB"
        cpus = max(1, first.nthreads)
        lines += [
            f"  {pool.name}: # {len(pool.workers)} workers, told apart by {pool.because}",
            f"    market: {'spot' if pool.spot else 'on-demand'} # spot: they may be taken away",
            f"    worker: {{cpus: {cpus}, memory: {memory}, slots: {cpus}{gpus}}}",
            f"    price: {price}"
            if price is not None
            else "    price: # dollars an hour of one worker; 0 when it is free",
            f"    workers: {{max: {len(pool.workers)}}}",
            f"    selector: {_yaml(pool.selector)}",
        ]
    return "\n".join(lines) + "\n"


def _yaml(selector: Selector) -> str:
    parts = []
    if selector.name is not None:
        parts.append(f"name: '{selector.name}'")
    if selector.host is not None:
        parts.append(f"host: '{selector.host}'")
    if selector.resources:
        parts.append("resources: {" + ", ".join(f"{name}: {amount:g}" for name, amount in selector.resources) + "}")
    if selector.nthreads is not None:
        parts.append(f"nthreads: {selector.nthreads}")
    return "{" + ", ".join(parts) + "}"
