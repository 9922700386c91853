"""One real ORC for the session: `orc up` in a temporary folder, ended by its process ids."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.orc import Orc


@pytest.fixture(scope="session")
def orc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orc]:
    """ORC, up."""
    made = Orc(tmp_path_factory.mktemp("orc"))
    try:
        yield made.up()
    finally:
        made.end()
