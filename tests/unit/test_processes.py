"""What every process of ORC shares: files, locks, ports."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import psutil
import pytest

from agent.errors import ServiceError
from agent.processes import atomic_file, ports
from agent.processes.family import alive
from agent.processes.lock import Lock
from agent.services import home


def test_a_file_is_replaced_whole_with_its_rights_whatever_the_mask_says(tmp_path):
    file = tmp_path / "said.json"
    file.write_text("old")
    file.chmod(0o644)
    before = os.umask(0o022)
    try:
        atomic_file.write(file, "new")
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o600)
        os.umask(0o777)
        atomic_file.write(file, b"\x00again", mode=0o640)
        assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"\x00again", 0o640)
    finally:
        os.umask(before)
    assert [f.name for f in tmp_path.iterdir()] == ["said.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path):
    (tmp_path / "said.json").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        atomic_file.write(tmp_path / "said.json", "a lone \ud800")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("said.json", "old")]


def test_a_lock_is_held_by_one_and_handed_to_a_child(tmp_path):
    file = tmp_path / "lock"
    lock = Lock.take(file)
    assert lock is not None
    assert Lock.take(file) is None
    code = (
        "import sys; from agent.processes.lock import Lock; Lock(int(sys.argv[1])).keep('the child'); "
        "print(flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(lock.descriptor)],
        pass_fds=[lock.descriptor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        child.stdout.readline()
        lock.release()
        assert Lock.take(file) is None
        assert file.read_text() == "the child"
    finally:
        child.kill()
        child.communicate()
    again = Lock.take(file)
    assert again is not None
    again.release()


def test_a_home_is_for_its_user_alone_also_one_that_an_older_orc_left_open(tmp_path):
    old = tmp_path / "orc"
    old.mkdir(mode=0o755)
    (old / "ledger.db").touch(mode=0o644)
    assert [path.name for path in home.open_to_others(old)] == ["orc", "ledger.db"]
    home.prepare(old)
    assert home.open_to_others(old) == []
    assert stat.S_IMODE((old / "logs").stat().st_mode) == 0o700
    taken = home.lock(old)
    taken.write("process 7, since noon")
    with pytest.raises(ServiceError, match=r"already up or just starting in .* \(process 7, since noon\)"):
        home.lock(old)
    assert home.is_held(old)
    taken.release()
    assert not home.is_held(old)


def test_a_port_is_free_until_somebody_listens(tmp_path):
    port = ports.free()
    assert ports.is_free("127.0.0.1", port)
    assert not ports.listens("127.0.0.1", port)
    assert ports.free(but=[port]) != port


def test_a_process_is_told_from_another_of_its_id():
    me = psutil.Process()
    assert alive(me.pid, me.create_time())
    assert not alive(me.pid, me.create_time() - 100)
