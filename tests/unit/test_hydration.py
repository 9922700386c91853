"""What a worker's thread does before its first task."""

from __future__ import annotations

import pytest
from prefect.context import SyncClientContext
from prefect.settings import PREFECT_API_URL, temporary_settings

from agent.worker.hydration import open_client
from harness.processes import free_port


def test_a_server_that_is_away_keeps_no_thread_from_its_client():
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        client = SyncClientContext()
        open_client(client)
        assert not client.client._client.is_closed


def test_a_server_of_another_version_is_still_refused(monkeypatch):
    def mismatch(self):
        raise RuntimeError("Found incompatible versions")

    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        client = SyncClientContext()
        monkeypatch.setattr(type(client.client), "raise_for_api_version_mismatch_once", mismatch)
        with pytest.raises(RuntimeError, match="incompatible"):
            open_client(client)
