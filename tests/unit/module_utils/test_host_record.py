# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's record survives kills and full disks whole."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    Record,
    render_env,
    render_json,
    rolling,
    settled,
)
from support.releases import release

A, B, C = (release(letter) for letter in "abc")
OLD = settled(None, "demo", A, 1)
NEW = rolling(OLD, "demo", B, 2)


# A child that writes NEW over OLD, with something done to it first.
WRITER = """
import os, resource, signal, sys
from pathlib import Path
from ansible_collections.driftguard.workers.plugins.module_utils import host_files, host_record, record
from support.releases import release

def after(number, function):
    "The function, which kills this process before its call of that number."
    calls = iter(range(1000))
    def counted(*arguments):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return counted

{sabotage}
old = record.settled(None, "demo", release("a"), 1)
host_record.HostRecords(Path(sys.argv[1]), "demo").write(record.rolling(old, "demo", release("b"), 2))
"""


def write_in_child(root: Path, sabotage: str) -> subprocess.CompletedProcess[str]:
    script = WRITER.format(sabotage=textwrap.dedent(sabotage))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", script, str(root)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def files(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((root / "demo" / "guard").iterdir())}


def both(record: Record) -> dict[str, str]:
    return {"guard.env": render_env(record), "guard.json": render_json(record)}


@pytest.fixture
def host(tmp_path: Path) -> HostRecords:
    return HostRecords(tmp_path, "demo")


@pytest.fixture
def old_host(host: HostRecords) -> HostRecords:
    host.write(OLD)
    return host


def test_a_record_is_read_as_it_was_written(host: HostRecords) -> None:
    assert (host.read().record, host.read().problem) == (None, "")
    host.write(NEW)
    assert (host.read().record, host.read().problem) == (NEW, "")


def test_files_are_readable_by_any_worker_whatever_the_umask(tmp_path: Path, host: HostRecords) -> None:
    before = os.umask(0o077)
    try:
        host.write(NEW)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "demo" / "guard").iterdir()}
    assert modes == {"guard.json": 0o644, "guard.env": 0o644}
    assert stat.S_IMODE((tmp_path / "demo" / "guard").stat().st_mode) == 0o755


def test_the_directory_that_containers_have_mounted_stays_the_same(tmp_path: Path, old_host: HostRecords) -> None:
    inode = (tmp_path / "demo" / "guard").stat().st_ino
    old_host.write(NEW)
    assert (tmp_path / "demo" / "guard").stat().st_ino == inode


def test_what_another_is_writing_beside_it_is_left_alone(tmp_path: Path, old_host: HostRecords) -> None:
    guard = tmp_path / "demo" / "guard"
    own = [".guard.json.staged", ".guard.env.staged", "..guard.env.staged.abcdefgh", ".guard.json.abcdefgh"]
    for name in (*own, ".version_guard.py.abcdefgh", ".version-guard.cjs.abcdefgh"):
        (guard / name).write_text("half")
    old_host.write(NEW)
    assert files(tmp_path) == {
        **both(NEW), ".version_guard.py.abcdefgh": "half", ".version-guard.cjs.abcdefgh": "half"}


KILLS = [
    (function, number) for function, count in (("replace", 4), ("fsync", 5), ("fchmod", 2)) for number in range(count)
]


@pytest.mark.parametrize(("function", "number"), KILLS, ids=[f"{function}-{number}" for function, number in KILLS])
def test_a_kill_at_any_point_leaves_each_file_whole_and_is_mended(
    tmp_path: Path,
    old_host: HostRecords,
    function: str,
    number: int,
) -> None:
    done = write_in_child(tmp_path, f"os.{function} = after({number}, os.{function})")
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = files(tmp_path)
    assert left["guard.env"] in (render_env(OLD), render_env(NEW))
    assert left["guard.json"] in (render_json(OLD), render_json(NEW))
    if left["guard.json"] == render_json(NEW):
        assert left["guard.env"] == render_env(NEW), "guard.json promised what the sh guard doesn't enforce yet"
    agree = (left["guard.json"], left["guard.env"]) in ((render_json(r), render_env(r)) for r in (OLD, NEW))
    assert bool(old_host.read().problem) is not agree
    old_host.write(NEW)
    assert files(tmp_path) == both(NEW)


def test_a_kill_between_the_two_is_among_those_points(tmp_path: Path, old_host: HostRecords) -> None:
    write_in_child(tmp_path, "os.replace = after(3, os.replace)")
    assert files(tmp_path)["guard.env"] == render_env(NEW)
    assert files(tmp_path)["guard.json"] == render_json(OLD)
    assert (old_host.read().record, old_host.read().problem) == (OLD, "guard.env doesn't say the same as guard.json")


@pytest.mark.parametrize("room", [0, 10, 250, 400])
def test_a_full_disk_changes_neither_file(tmp_path: Path, old_host: HostRecords, room: int) -> None:
    assert len(render_env(NEW)) < 400 < len(render_json(NEW))
    limit = f"""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
    """
    done = write_in_child(tmp_path, limit)
    assert "DriftguardError" in done.stderr
    assert "File too large" in done.stderr
    shown = files(tmp_path)
    assert {name: text for name, text in shown.items() if not name.startswith(".")} == both(OLD)
    old_host.write(NEW)
    assert files(tmp_path) == both(NEW)


def test_a_directory_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file where the directory should be")
    with pytest.raises(DriftguardError) as caught:
        HostRecords(tmp_path, "demo").write(NEW)
    assert str(tmp_path / "demo") in caught.value.subject


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", render_json(NEW).replace("demo", "other").encode()]
)
def test_a_damaged_record_is_a_problem_and_none(tmp_path: Path, old_host: HostRecords, content: bytes) -> None:
    (tmp_path / "demo" / "guard" / "guard.json").write_bytes(content)
    found = old_host.read()
    assert found.record is None
    assert "guard.json" in found.problem
    assert found.problem.isprintable()


@pytest.mark.parametrize("content", ["", "SCHEMA=1\n", render_env(NEW)])
def test_a_guard_env_that_says_something_else_is_a_problem(tmp_path: Path, old_host: HostRecords, content: str) -> None:
    (tmp_path / "demo" / "guard" / "guard.env").write_text(content)
    assert old_host.read().record == OLD
    assert "guard.env" in old_host.read().problem


def test_a_guard_env_alone_is_a_problem(tmp_path: Path, old_host: HostRecords) -> None:
    (tmp_path / "demo" / "guard" / "guard.json").unlink()
    assert old_host.read().record is None
    assert "guard.env is there" in old_host.read().problem


@pytest.mark.parametrize("fleet", ["../x", "demo/..", "Demo", "", "a", "demo\n"])
def test_a_fleet_that_would_leave_the_root_is_refused(tmp_path: Path, fleet: str) -> None:
    with pytest.raises(DriftguardError):
        HostRecords(tmp_path, fleet)
