"""How tables become a graph: the mapping file, checked against itself and against the tables' columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

#: how rows of one node or relation become one value
AGGREGATES = ("count", "sum", "mean", "min", "max", "first")


class MappingError(ValueError):
    """A mapping cannot be used; the message names the place, what is there and what is allowed."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _Node(_Model):
    table: str = Field(alias="from")
    key: str | dict[str, list[str]]
    properties: list[str] | dict[str, str | dict[str, str]] = []
    #: rows of the same key are expected, not duplicates
    distinct: bool = False


class _Relation(_Model):
    table: str = Field(alias="from")
    start: Annotated[dict[str, str | list[str]], Field(min_length=1, max_length=1)]
    end: Annotated[dict[str, str | list[str]], Field(min_length=1, max_length=1)]
    properties: list[str] | dict[str, str | dict[str, str]] = []
    distinct: bool = False
    orphans: Literal["report", "refuse"] = "report"


class _Feature(_Model):
    cypher: str
    by: Annotated[list[str], Field(min_length=1)]
    #: for rows the graph knows nothing of
    missing: float | None = None


class _Mapping(_Model):
    provenance: str = "load"
    nodes: Annotated[dict[str, _Node], Field(min_length=1)]
    relations: dict[str, _Relation] = {}
    features: dict[str, _Feature] = {}

    @field_validator("nodes", "relations")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name for a label or type; write letters, digits and _")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a relation."""

    label: str
    #: the label's key property
    key: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One label or relation type: where its rows come from and what they carry."""

    name: str
    table: str
    #: key property and its columns (nodes)
    key: str = ""
    columns: tuple[str, ...] = ()
    #: ends (relations)
    start: End | None = None
    end: End | None = None
    #: property → column
    plain: tuple[tuple[str, str], ...] = ()
    #: property → (aggregate, column)
    aggregates: tuple[tuple[str, str, str], ...] = ()
    distinct: bool = False
    refuse_orphans: bool = False

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column it reads."""
        ends = [*self.start.columns, *self.end.columns] if self.start and self.end else []
        counted = [column for _, how, column in self.aggregates if how != "count"]
        return tuple(dict.fromkeys([*self.columns, *ends, *(c for _, c in self.plain), *counted]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A named query whose rows are joined to a table."""

    name: str
    cypher: str
    by: tuple[str, ...]
    missing: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMapping:
    """A mapping file, read and checked."""

    provenance: str
    nodes: tuple[Kind, ...]
    relations: tuple[Kind, ...]
    features: tuple[Feature, ...]
    text: str

    def tables(self) -> set[str]:
        """Every table it reads."""
        return {kind.table for kind in (*self.nodes, *self.relations)}


def read(path: str | Path) -> GraphMapping:
    """The mapping of a file. Raises MappingError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        said = yaml.safe_load(text)
    except OSError as error:
        raise MappingError(f"mapping {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise MappingError(f"mapping {path} is no YAML: {' '.join(str(error).split())}") from error
    return parse(said, text, str(path))


def parsed(text: str) -> GraphMapping:
    """The mapping of a file's content, which was read and checked before."""
    return parse(yaml.safe_load(text), text, "of this run")


def parse(said: Any, text: str, where: str) -> GraphMapping:
    """The mapping of what YAML said. Raises MappingError."""
    try:
        made = _Mapping.model_validate(said)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(p) for p in e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        ]
        raise MappingError(f"mapping {where}: " + "; ".join(lines)) from error
    # labels and relationship types share one namespace on some servers
    if both := sorted(set(made.nodes) & set(made.relations)):
        raise MappingError(f"mapping {where}: {both[0]} names a node and a relation; give one of them another name")
    nodes = {name: _node(where, name, node) for name, node in made.nodes.items()}
    relations = tuple(_relation(where, name, relation, nodes) for name, relation in made.relations.items())
    for kind in (*nodes.values(), *relations):
        taken = {made.provenance, *(("_key",) if kind.key else ())} | ({kind.key} if kind.key else set())
        if clash := [
            name for name in (*(p for p, _ in kind.plain), *(p for p, _, _ in kind.aggregates)) if name in taken
        ]:
            raise MappingError(
                f"mapping {where}: {kind.name}.properties: {clash[0]!r} is its key or the provenance already"
            )
    return GraphMapping(
        provenance=made.provenance,
        nodes=tuple(nodes.values()),
        relations=relations,
        features=tuple(
            Feature(name=n, cypher=f.cypher, by=tuple(f.by), missing=f.missing) for n, f in made.features.items()
        ),
        text=text,
    )


def _node(where: str, name: str, node: _Node) -> Kind:
    key, columns = next(iter(node.key.items())) if isinstance(node.key, dict) else (node.key, [node.key])
    if not columns:
        raise MappingError(f"mapping {where}: {name}.key: {key!r} has no columns")
    plain, aggregates = _properties(where, name, node.properties)
    return Kind(
        name=name,
        table=node.table,
        key=key,
        columns=tuple(columns),
        plain=plain,
        aggregates=aggregates,
        distinct=node.distinct or bool(aggregates),
    )


def _relation(where: str, name: str, relation: _Relation, nodes: Mapping[str, Kind]) -> Kind:
    plain, aggregates = _properties(where, name, relation.properties)
    ends = []
    for which, said in (("start", relation.start), ("end", relation.end)):
        label, columns = next(iter(said.items()))
        if label not in nodes:
            raise MappingError(
                f"mapping {where}: {name}.{which}: there is no node {label!r}; the nodes are {', '.join(nodes)}"
            )
        listed = [columns] if isinstance(columns, str) else list(columns)
        if len(listed) != len(nodes[label].columns):
            raise MappingError(
                f"mapping {where}: {name}.{which}: {label} is found by {len(nodes[label].columns)} columns "
                f"({', '.join(nodes[label].columns)}), here are {len(listed)}"
            )
        ends.append(End(label=label, key=nodes[label].key, columns=tuple(listed)))
    return Kind(
        name=name,
        table=relation.table,
        start=ends[0],
        end=ends[1],
        plain=plain,
        aggregates=aggregates,
        distinct=relation.distinct or bool(aggregates),
        refuse_orphans=relation.orphans == "refuse",
    )


def _properties(
    where: str, name: str, said: list[str] | dict[str, str | dict[str, str]]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str, str], ...]]:
    plain: list[tuple[str, str]] = []
    aggregates: list[tuple[str, str, str]] = []
    for prop, what in ({column: column for column in said} if isinstance(said, list) else said).items():
        if isinstance(what, str) and what != "count":
            plain.append((prop, what))
            continue
        how, column = ("count", "") if isinstance(what, str) else next(iter(what.items()), ("", ""))
        if how not in AGGREGATES or (isinstance(what, dict) and len(what) != 1):
            raise MappingError(
                f"mapping {where}: {name}.properties.{prop}: {what!r}; write a column, `count`, or one of "
                f"{', '.join(AGGREGATES[1:])} with its column, as {{mean: COLUMN}}"
            )
        aggregates.append((prop, how, column))
    return tuple(plain), tuple(aggregates)


def require(mapping: GraphMapping, columns: Mapping[str, Iterable[str]]) -> None:
    """Raises MappingError when a table or a column that the mapping reads is not there; nothing is written then."""
    for kind in (*mapping.nodes, *mapping.relations):
        if kind.table not in columns:
            raise MappingError(
                f"{kind.name}.from: there is no table {kind.table!r}; the tables are {', '.join(sorted(columns))}"
            )
        there = list(columns[kind.table])
        if missing := [column for column in kind.wanted if column not in there]:
            raise MappingError(
                f"{kind.name}: table {kind.table} has no column {missing[0]!r}; it has {', '.join(map(str, there))}"
            )
