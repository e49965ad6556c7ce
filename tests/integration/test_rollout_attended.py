# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_rollout in a playbook that stays with it: what it shows, how it ends with it, whose lease it keeps."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from support.extent import some
from support.fleet import Fleet, wait_for
from support.modules import PROJECT
from support.redis_server import RedisServer
from support.rollouts import LONG, SHORT, Rollouts, holding, send, whole_session

LINE = re.compile(r"^here +(\S+) +(\S+) +(stopping|starting|healthy|verified) +([\d.]+) s$", re.MULTILINE)


@pytest.fixture(scope="module")
def stubborn(module_fleet: Fleet) -> Fleet:
    """A fleet that is deployed, of which the betas take the whole of their grace time to stop."""
    module_fleet.variables["worker_service_defaults"]["stop_grace_period"] = "6s"
    module_fleet.commit(ignore_sigterm="beta")
    module_fleet.deploy().must_pass()
    return module_fleet


@pytest.fixture
def rollouts(stubborn: Fleet) -> Iterator[Rollouts]:
    made = Rollouts(stubborn)
    made.fleet.redis.client.delete(f"{stubborn.name}:lock:deploy")
    yield made
    wait_for(lambda: not made.modules(), "rollouts of the test before to end", 60)


def heals(rollouts: Rollouts) -> None:
    """One more run is enough, and leaves nothing to do."""
    rollouts.fleet.heal()
    assert not rollouts.fleet.heal(check=True).changed
    rollouts.fleet.prove(timeout=60).must_pass()


def test_each_container_is_told_of_while_it_happens_and_the_lease_is_kept(rollouts: Rollouts) -> None:
    """The lease is shorter than the rollout, and still held when it ends."""
    old = rollouts.fleet.ids()
    process = rollouts.start(lease=20, progress="always", stabilize=24)
    wait_for(lambda: LINE.search(rollouts.fleet.log.read_text()), "the first line", 120)
    assert process.poll() is None
    assert process.wait(1200) == 0, rollouts.fleet.log.read_text()
    output = rollouts.fleet.log.read_text()
    steps = LINE.findall(output)
    for name in old:
        assert [event for _service, container, event, _seconds in steps if container == name] == [
            "stopping", "starting", "healthy", "verified"], output
    assert [float(step[3]) for step in steps] == sorted(float(step[3]) for step in steps)
    assert "\x1b" not in output
    assert "KEPT renewed" in output
    assert not set(old.values()) & set(rollouts.fleet.ids().values())
    assert list(rollouts.fleet.root.glob("*/state/attended-*")) == []


def test_nothing_is_shown_where_nobody_watches(rollouts: Rollouts) -> None:
    process = rollouts.start(stabilize=0)
    assert process.wait(1200) == 0, rollouts.fleet.log.read_text()
    assert not LINE.search(rollouts.fleet.log.read_text())


@pytest.mark.parametrize("progress", ["auto", "never"])
def test_a_terminal_is_shown_progress_unless_it_is_told_not_to(rollouts: Rollouts, progress: str) -> None:
    playbook = rollouts.playbook(progress=progress, stabilize=0)
    main, side = pty.openpty()
    program = Path(sys.executable).parent / "ansible-playbook"
    command = [str(program), str(playbook), "-i", str(rollouts.fleet.inventory())]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "TERM": "xterm"}
    for name in ("NO_COLOR", "ANSIBLE_NOCOLOR"):  # whoever runs the tests may want none
        environment.pop(name, None)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=side, stderr=side, env=environment, cwd=PROJECT,
        start_new_session=True)
    os.close(side)
    output = b"".join(iter(lambda: read(main), b"")).decode()
    assert process.wait(1200) == 0, output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output).replace("\r", "")
    assert len(LINE.findall(plain)) == (0 if progress == "never" else 12), output
    assert ("\x1b[0;32mhere " in output) == (progress == "auto")


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal says that nobody has it any more
        return b""


def in_the_middle(rollouts: Rollouts, phase: str, **options: Any) -> subprocess.Popen[str]:
    """A rollout that is stopping its old containers, or waiting for its new ones."""
    old = set(rollouts.fleet.ids().values())
    # Longer than anybody waits here for its end: one that goes on to its natural end is found.
    process = rollouts.start(**{"stabilize": 1500, **options})
    if phase == "stopping":
        wait_for((rollouts.fleet.root / rollouts.fleet.name / "state" / "leaving").exists, "containers to stop", 120)
    else:
        wait_for(lambda: all_new(rollouts.fleet, old) or process.poll() is not None, "new containers", 120)
        assert process.poll() is None, rollouts.fleet.log.read_text()
    return process


def all_new(fleet: Fleet, old: set[str]) -> bool:
    return len(fleet.ids()) == 3 and not old & set(fleet.ids().values())


def test_what_it_asks_redis_with_is_in_no_file_while_it_works(rollouts: Rollouts) -> None:
    """What is started beside its connection lies on the host's disk with its arguments."""
    process = in_the_middle(rollouts, "waiting", proof=rollouts.redis)
    found = holding(rollouts.fleet, rollouts.fleet.redis.password)
    send([process.pid], signal.SIGINT)
    assert process.wait(600) != 0
    wait_for(rollouts.all_ended, "the rollout to end by itself", 60)
    assert found == []
    heals(rollouts)


@pytest.mark.parametrize(("how", "phase"), some(
    itertools.product(["interrupted", "terminated", "killed", "killed with its tasks"], ["stopping", "waiting"]),
    ("interrupted", "waiting"), ("killed", "stopping"), ("killed with its tasks", "waiting")))
def test_a_rollout_ends_with_its_playbook(rollouts: Rollouts, how: str, phase: str) -> None:
    """Told to stop; found by its task's process that the playbook is no more; or not heard any more by the host."""
    process = in_the_middle(rollouts, phase, heartbeat=SHORT if how == "killed with its tasks" else LONG)
    number = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM}.get(how, signal.SIGKILL)
    send(whole_session(process) if how == "killed with its tasks" else [process.pid], number)
    assert process.wait(600) != 0
    wait_for(rollouts.all_ended, "the rollout to end by itself", 60)
    ended = time.time()
    assert rollouts.touched(ended + 1, ended + 9) == []
    heals(rollouts)


def test_a_deploy_that_was_suspended_while_another_took_over_changes_nothing(rollouts: Rollouts) -> None:
    process = in_the_middle(rollouts, "waiting", heartbeat=SHORT, lease=4)
    suspended = whole_session(process)
    send(suspended, signal.SIGSTOP)
    wait_for(rollouts.all_ended, "the rollout to end by itself", 60)
    wait_for(lambda: not rollouts.lock("read")["held"], "the lease to run out", 60)
    rollouts.lock(owner="bob").must_pass()
    rollouts.fleet.heal()
    ids, resumed = rollouts.fleet.ids(), time.time()
    send(suspended, signal.SIGCONT)
    assert process.wait(1200) != 0
    output = rollouts.fleet.log.read_text()
    assert re.search(r"it went to bob", output), output
    assert rollouts.touched(resumed, time.time() + 3) == []
    assert rollouts.fleet.ids() == ids


def test_a_lease_that_another_took_stops_a_rollout_that_is_under_way(rollouts: Rollouts) -> None:
    """As after Redis lost its data, or somebody deleted the lease."""
    process = in_the_middle(rollouts, "waiting", lease=12)
    client, key = rollouts.fleet.redis.client, f"{rollouts.fleet.name}:lock:deploy"
    # At once: what is only deleted is taken again by the next renewal.
    client.set(key, json.dumps({**json.loads(client.get(key)), "token": "bobs", "owner": "bob"}), px=600_000)
    assert process.wait(1200) != 0
    assert "it went to bob" in rollouts.fleet.log.read_text()
    heals(rollouts)


def test_a_redis_that_is_away_for_less_than_the_lease_ends_no_rollout(
    rollouts: Rollouts, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked in vain at a third of the lease, and answers again before the lease is over."""
    # The lease's alone: workers that lose theirs would end the rollout.
    own = {"redis_url": redis_server.bare_url, "redis_password": redis_server.password}
    monkeypatch.setattr(rollouts, "redis", own)
    process = in_the_middle(rollouts, "waiting", stabilize=50, lease=60, heartbeat=20)
    redis_server.pause()
    log = rollouts.fleet.log
    wait_for(lambda: "tried again" in log.read_text() or process.poll() is not None, "a renewal in vain", 60)
    redis_server.resume()
    assert process.wait(1200) == 0, log.read_text()
    assert "couldn't be renewed and will be tried again" in log.read_text()
    assert "KEPT renewed" in log.read_text()
    # What the rollouts of killed playbooks left, too.
    assert list(rollouts.fleet.root.glob("*/state/attended-*")) == []


# A connection to this machine with 200 ms more for each command, which a test can break: what was sent then still runs.
BREAKABLE = """
import os, time
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

# Its options are the local one's own.
from ansible.plugins.connection.local import DOCUMENTATION as LOCAL
DOCUMENTATION = LOCAL.replace("name: local", "name: breakable")

class Connection(Local):
    transport = "breakable"

    def exec_command(self, cmd, in_data=None, sudoable=True):
        time.sleep(0.2)
        if os.path.exists("%s"):
            raise AnsibleConnectionFailure("broken by a test")
        return super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
"""


@pytest.fixture
def broken(rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that breaks the connection of rollouts as long as it is there."""
    mark = tmp_path / "broken"
    (tmp_path / "breakable.py").write_text(BREAKABLE % mark)
    monkeypatch.setenv("ANSIBLE_CONNECTION_PLUGINS", str(tmp_path))
    rollouts.connection = "breakable"
    return mark


def test_a_slow_connection_that_breaks_for_less_than_the_heartbeat_ends_nothing(
    rollouts: Rollouts, broken: Path,
) -> None:
    process = in_the_middle(rollouts, "waiting", stabilize=15, heartbeat=60)
    beat = next(path for path in rollouts.fleet.root.glob("*/state/attended-*/beat"))
    broken.touch()
    time.sleep(6)  # three looks that would have been
    unheard = beat.read_text()
    time.sleep(2.5)
    assert beat.read_text() == unheard
    broken.unlink()
    assert process.wait(1200) == 0, rollouts.fleet.log.read_text()


def test_a_host_that_cannot_be_reached_is_told_of_when_its_rollout_has_stopped(
    rollouts: Rollouts, broken: Path,
) -> None:
    process = in_the_middle(rollouts, "waiting", heartbeat=SHORT)
    broken.touch()
    assert process.wait(1200) == 4, rollouts.fleet.log.read_text()
    assert rollouts.all_ended()
    assert "stopped at a safe point by now" in rollouts.fleet.log.read_text()
    heals(rollouts)
