# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lease's process is called gone only when it certainly is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import lease_owner
from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import (
    Process,
    is_gone,
    playbook_pid,
    process_of,
    this_machine,
    this_owner,
)
from support.redis_server import wait_until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def start_of(pid: int) -> str:
    process = process_of(pid)
    assert process is not None
    return process.start


def test_a_live_process_is_not_gone(sleeper: subprocess.Popen[bytes]) -> None:
    assert not is_gone(this_machine(), sleeper.pid, start_of(sleeper.pid))


def test_a_suspended_process_is_not_gone(sleeper: subprocess.Popen[bytes]) -> None:
    start = start_of(sleeper.pid)
    sleeper.send_signal(signal.SIGSTOP)
    wait_until(lambda: (process_of(sleeper.pid) or Process(0, "", "")).state == "T", "it to stop")
    assert not is_gone(this_machine(), sleeper.pid, start)


def test_a_killed_process_is_gone_even_before_it_is_reaped(sleeper: subprocess.Popen[bytes]) -> None:
    start = start_of(sleeper.pid)
    sleeper.send_signal(signal.SIGKILL)
    wait_until(lambda: is_gone(this_machine(), sleeper.pid, start), "a zombie to count as gone")
    sleeper.wait()
    assert is_gone(this_machine(), sleeper.pid, start)


def test_a_later_process_with_the_same_number_is_another(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_gone(this_machine(), sleeper.pid, str(int(start_of(sleeper.pid)) - 1))


@pytest.mark.parametrize("machine", ["", "another boot pid:[1]", this_machine() + "1"])
def test_on_another_machine_nothing_is_known(sleeper: subprocess.Popen[bytes], machine: str) -> None:
    start = start_of(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert not is_gone(machine, sleeper.pid, start)


@pytest.mark.parametrize(("pid", "start"), [(0, "1"), (-1, "1"), (2**31, "1"), (1, "")])
def test_an_owner_without_a_process_is_never_gone(pid: int, start: str) -> None:
    assert not is_gone(this_machine(), pid, start)


def test_where_proc_shows_nothing_of_others_a_process_that_exists_is_not_gone(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, machine = start_of(sleeper.pid), this_machine()
    monkeypatch.setattr(lease_owner, "this_machine", lambda: machine)
    monkeypatch.setattr(lease_owner, "PROC", tmp_path)
    assert not is_gone(machine, sleeper.pid, start)


def test_without_proc_there_is_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_owner, "PROC", tmp_path)
    assert this_machine() == ""
    assert playbook_pid() == 0
    assert this_owner("", "run", None).pid == 0


def test_a_container_s_process_table_is_another_machine() -> None:
    """Two containers share a boot id; each has a process 1 of its own."""
    script = (
        "from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import *; print(this_machine())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert said.split()[0] == this_machine().split()[0]
    assert said != this_machine()


def test_a_name_with_parentheses_and_spaces_does_not_shift_the_fields(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "600"]) as process:
        try:
            found = wait_until(lambda: process_of(process.pid), "the process")
            assert found.parent == os.getpid()
            assert found.start.isdigit()
        finally:
            process.kill()


def test_the_owner_is_user_at_host_unless_named() -> None:
    assert "@" in this_owner("", "run", 0).name
    assert this_owner("alice", "run", 0).name == "alice"


def test_a_pid_that_is_not_there_is_not_watched() -> None:
    assert (this_owner("", "", 2**31 - 1).pid, this_owner("", "", -7).pid) == (0, 0)
    assert this_owner("", "", os.getpid()).pid == os.getpid()


def test_the_playbook_itself_is_found_through_its_forks_and_nobody_else_s(tmp_path: Path) -> None:
    """A playbook's forks have its command line and end with their task; one that started this playbook is another's."""
    playbook = tmp_path / "ansible-playbook"
    playbook.write_text(
        textwrap.dedent("""
        import os, subprocess, sys
        from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner import playbook_pid
        if sys.argv[1] == "outer":
            subprocess.run(["sh", "-c", f"{sys.executable} {sys.argv[0]} inner; true"], check=True)
        elif os.fork() == 0:
            subprocess.run([sys.executable, "-c", (
                "import sys; from ansible_collections.driftguard.workers.plugins.module_utils.lease_owner "
                "import playbook_pid; print(playbook_pid())")], check=True)
        else:
            os.wait()
            print(os.getpid(), flush=True)
    """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for argument in ("inner", "outer"):
        said = subprocess.run(
            [sys.executable, str(playbook), argument], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        assert said[0] == said[1]


def test_a_process_that_no_playbook_started_has_none() -> None:
    assert playbook_pid() == 0
