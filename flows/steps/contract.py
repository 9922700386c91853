"""What a table must look like: declared columns, turned into a pandera schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pandera.pandas as pa

DTYPES = {"int": "int64", "float": "float64", "category": "string", "bool": "bool"}


class ContractError(ValueError):
    """A table does not keep its contract; the message names the table, the column and the first bad value."""


def schema(columns: Mapping[str, Mapping[str, Any]]) -> pa.DataFrameSchema:
    """The pandera schema of declared columns. Raises ContractError for an unknown type or field."""
    out = {}
    for name, said in columns.items():
        if said.get("type") not in DTYPES:
            raise ContractError(
                f"column {name!r}: type {said.get('type')!r} is unknown; allowed are {', '.join(DTYPES)}"
            )
        if unknown := sorted(set(said) - {"type", "nullable", "min", "max", "in"}):
            raise ContractError(
                f"column {name!r}: unknown field {unknown[0]!r}; allowed are type, nullable, min, max, in"
            )
        checks = [pa.Check.ge(said["min"])] if "min" in said else []
        checks += [pa.Check.le(said["max"])] if "max" in said else []
        checks += [pa.Check.isin(said["in"])] if "in" in said else []
        out[name] = pa.Column(DTYPES[said["type"]], checks, nullable=bool(said.get("nullable", False)))
    return pa.DataFrameSchema(out, strict=True)


def require(table: str, there: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises ContractError when a column is missing."""
    if missing := [name for name in wanted if name not in there]:
        raise ContractError(f"table {table}: column {missing[0]!r} is missing; it has {', '.join(there)}")


def shaped(frame: pd.DataFrame, columns: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The declared columns, in order, in their types. Raises ContractError where a value does not fit its type."""
    out = {}
    for name, said in columns.items():
        try:
            out[name] = frame[name].astype(DTYPES[said["type"]])
        except (ValueError, TypeError) as error:
            raise ContractError(f"column {name!r} does not fit type {said['type']}: {error}") from error
    return pd.DataFrame(out, index=frame.index)


def check(table: str, frame: pd.DataFrame, contract: pa.DataFrameSchema) -> pd.DataFrame:
    """The frame, when it keeps the contract. Raises ContractError with the first failure and how many there are."""
    try:
        checked: pd.DataFrame = contract.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        first = cases.iloc[0]
        raise ContractError(
            f"table {table}: column {first['column']!r} breaks {first['check']} with {first['failure_case']!r}; "
            f"{len(cases)} failures in all"
        ) from errors
    return checked
