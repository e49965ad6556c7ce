# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts over three hosts that something happens to in the middle. Whatever it is: success is said of one release
everywhere alone, what is published is what runs, nothing goes on by itself, and a plain run afterwards converges.
"""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
from dataclasses import dataclass, field
from typing import Any, Iterator

import pytest
import redis as redis_py
from support.extent import POINTS, some
from support.fleet import wait_for

from lab.fleet import LabFleet

pytestmark = pytest.mark.timeout(3600)

DEPLOY = "deploy-workers.yml"
SHOWN = ("-e", "worker_progress=always")
# What a rollout says as it goes on: the next task, and each step of a container within one.
SAID = re.compile(r"^(TASK \[|host\d .* (stopping|starting|healthy|verified) )", re.MULTILINE)
# But for what a worker's own log says, which the run shows.
CRASHED = re.compile(r"^(?!\s*- |.*it said: ).*Traceback", re.MULTILINE)
AT_WORK = "[A]nsiballZ_|[a]sync_wrapper|[l]ab-python|[d]ocker[- ]compose"


@dataclass(frozen=True)
class Fault:
    """A fault of the lab, as its command line makes it."""

    name: str
    host: str = ""
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Disturbance:
    """What happens while host2 replaces its containers, what is so before, how both are undone.

    :param bears: the rollout goes on to its end all the same.
    :param is_fenced: what runs on host2 and isn't on the published release has to be fenced before this is undone.
    """

    made: tuple[Fault, ...] = ()
    undone: tuple[Fault, ...] = ()
    before: tuple[Fault, ...] = ()
    bears: bool = False
    is_fenced: bool = False


BROKEN = {"milliseconds": 200, "break_after": 500_000}
DISTURBANCES = {
    "its SSH is cut": Disturbance(
        (Fault("cut", "host2", {"ssh_only": True}),), (Fault("mend", "host2"),), is_fenced=True),
    "its network is cut": Disturbance((Fault("cut", "host2"),), (Fault("mend", "host2"),)),
    "its engine is killed": Disturbance((Fault("kill-engine", "host2"),), (Fault("start-engine", "host2"),)),
    "its disk is full": Disturbance((Fault("fill", "host2"),), (Fault("empty", "host2"),)),
    "Redis is stopped": Disturbance((Fault("stop-redis"),), (Fault("start-redis"),)),
    "Redis is emptied": Disturbance((Fault("empty-redis"),)),
    "the registry hangs": Disturbance((Fault("pause-registry"),), (Fault("resume-registry"),), bears=True),
    "the registry is gone": Disturbance((Fault("stop-registry"),), (Fault("start-registry"),), bears=True),
    "its SSH is slow and breaks": Disturbance(
        (Fault("slow", "host2", BROKEN),), (Fault("fast", "host2"),), (Fault("slow", "host2"),), bears=True),
    # Behind and ahead, further apart than any lease or time limit. Not host3's: the library that sets Debian 12's clock
    # off breaks what sleeps there.
    "clocks are off": Disturbance(
        (), (Fault("skew", "host1"), Fault("skew", "host2")),
        (Fault("skew", "host1", {"seconds": -600}), Fault("skew", "host2", {"seconds": 1200})), bears=True),
}


@pytest.fixture(scope="module")
def length(life: LabFleet) -> int:
    """How much a rollout says, in which each host is a batch: at least, since a first one stops nothing."""
    life.variables["worker_batches"] = ["1"]
    life.commit(obey=True)
    life.deploy(*SHOWN).must_pass()
    return len(SAID.findall(life.log.read_text()))


@pytest.fixture(scope="module")
def steady(life: LabFleet, length: int) -> LabFleet:
    """A fleet that runs a commit."""
    return life


@pytest.fixture
def change(steady: LabFleet) -> Iterator[tuple[str, str]]:
    """The commit that the fleet runs, and the next one, which a plain run brings to all hosts in the end."""
    old = steady.git("rev-parse", "HEAD")
    new = steady.commit(obey=True)
    yield old, new
    steady.deploy("-e", "worker_lease_wait=300").must_pass()
    assert steady.everywhere() == steady.wanted(new)
    assert (steady.record()["phase"], steady.record()["target"]["sha"]) == ("settled", new)


def commits(fleet: LabFleet) -> dict[str, set[str]]:
    """The commits of a host's containers, in whatever state these are."""
    return {
        host: {one["OnHost"]["Config"]["Labels"]["org.opencontainers.image.revision"] for one in fleet.there(host)}
        for host in fleet.placement}


def told_the_truth(fleet: LabFleet, old: str, new: str, status: int) -> None:
    """What a run that is over said, and left as published, is so on the hosts."""
    record, runs = fleet.record(), commits(fleet)
    is_new = record.get("phase") == "settled" and record["target"]["sha"] == new
    if is_new:
        assert set.union(*runs.values()) == {new}, runs
    elif record:
        assert {release["sha"] for release in record["allowed"]} <= {old, new}
    if status == 0:
        assert is_new
        assert fleet.everywhere() == fleet.wanted(new)
    finished = [one["result"] for one in fleet.evidence() if (one["release"] or {}).get("sha") == new]
    assert "ok" not in finished or is_new


def under_way(fleet: LabFleet, *arguments: str) -> subprocess.Popen[str]:
    """A deploy of which host2 has just started a container of the new release."""
    process = fleet.start(DEPLOY, *SHOWN, *arguments)
    moment = re.compile(r"^host2 .* starting", re.MULTILINE)
    wait_for(lambda: moment.search(fleet.log.read_text()) or process.poll() is not None, "host2 to be rolled", 240)
    assert process.poll() is None, fleet.log.read_text()
    return process


def states(fleet: LabFleet, host: str, sha: str) -> set[str]:
    """What the instances of a commit on a host say of themselves."""
    client = fleet.redis.client
    found = [client.hgetall(key) for key in client.scan_iter(match=f"{fleet.name}:worker:*:*:version")]
    return {one["state"] for one in found if (one["host"], one["gitSha"]) == (host, sha)}


def answers(fleet: LabFleet) -> bool:
    """Whether Redis does."""
    try:
        return bool(fleet.redis.client.ping())
    except redis_py.RedisError:
        return False


def make(fleet: LabFleet, faults: tuple[Fault, ...]) -> None:
    """Make or undo them all."""
    for fault in faults:
        fleet.fault(fault.name, fault.host, **fault.more)


@pytest.mark.parametrize("name", some(DISTURBANCES))
def test_whatever_happens_in_the_middle(steady: LabFleet, change: tuple[str, str], name: str) -> None:
    case, (old, new) = DISTURBANCES[name], change
    try:
        make(steady, case.before)
        steady.disconnect()
        process = under_way(steady)
        make(steady, case.made)
        status = process.wait(3000)
        said = steady.log.read_text()
        if case.is_fenced:
            assert (steady.record()["phase"], steady.record()["target"]["sha"]) == ("settled", old), said
            assert f"host2: may run either release; what isn't {old} is fenced there" in said, said
            wait_for(lambda: states(steady, "host2", new) == {"fenced"}, "the new release on host2 to be fenced", 60)
    finally:
        make(steady, case.undone)
        wait_for(lambda: answers(steady), "Redis to answer")
    assert not CRASHED.search(said), said
    if case.bears:
        assert status == 0, said
    told_the_truth(steady, old, new, status)


def working(fleet: LabFleet) -> list[str]:
    """What Ansible started on the hosts and still runs there."""
    asked = ("sh", "-c", f"pgrep -af '{AT_WORK}' || true")
    return [line for host in fleet.placement for line in fleet.on(host, *asked).splitlines()]


@pytest.mark.parametrize("point", some(range(2 * POINTS), POINTS))
def test_ended_anywhere(steady: LabFleet, length: int, change: tuple[str, str], point: int) -> None:
    """Of the whole run nothing is left that works, and what was not done isn't said to be done."""
    sign = signal.SIGINT if point % 2 else signal.SIGKILL
    # The last lines come all at once.
    number = 1 + length * (point + 1) // (2 * POINTS + 2)
    process = steady.start(DEPLOY, *SHOWN, "-e", "worker_lease=60", "-e", "worker_lease_rolling=60")
    wait_for(
        lambda: len(SAID.findall(steady.log.read_text())) >= number or process.poll() is not None, "the point", 240)
    assert process.poll() is None, f"it was over before line {number} of {length}"
    os.killpg(process.pid, sign)
    assert process.wait(600) != 0
    print(f"ended at line {number} of {length}: {steady.log.read_text().splitlines()[-1]}")
    wait_for(lambda: not working(steady), "what it started on the hosts to end", 60)
    told_the_truth(steady, *change, 1)
    proved = steady.verify("-e", f"worker_expected_sha={change[1]}")
    behind = {host for host, found in commits(steady).items() if found - {change[1]}}
    told = re.findall(r"^ *- .* (host\d) +(\w{7}) .*\[(\w+)\]'?$", proved.output, re.MULTILINE)
    # Of what it had stopped and not yet removed, that comes first.
    stale = {host for host, sha, verdict in told if verdict in ("STALE", "STOPPED") and sha != change[1][:7]}
    assert stale == behind, proved.output
    assert "UNKNOWN" not in {verdict for _host, _sha, verdict in told}, proved.output
    assert proved.status != 0 or not behind


@pytest.mark.long
def test_of_two_deploys_one_goes_on_and_the_other_builds_nothing(steady: LabFleet, change: tuple[str, str]) -> None:
    process = steady.start(DEPLOY)
    first = steady.log
    wait_for(lambda: steady.redis.client.exists(f"{steady.name}:lock:deploy"), "the lease to be taken", 60)
    run = steady.deploy().must_fail(f"held by {getpass.getuser()}@{os.uname().nodename} ")
    assert "TASK [Build, check and tag the images]" not in run.output
    assert process.wait(1200) == 0, first.read_text()
    assert steady.everywhere() == steady.wanted(change[1])


@pytest.mark.long
def test_suspended_past_its_lease_it_changes_nothing(steady: LabFleet, change: tuple[str, str]) -> None:
    """Another deploy takes over meanwhile; when the first goes on it finds out, and leaves everything as it is."""
    short = ("-e", "worker_lease=30", "-e", "worker_lease_rolling=30")
    process = under_way(steady, *short)
    first = steady.log
    everything = [process.pid, *children(process.pid)]
    for pid in everything:
        os.kill(pid, signal.SIGSTOP)
    try:
        steady.deploy("-e", "worker_lease_wait=300").must_pass()
        assert steady.everywhere() == steady.wanted(change[1])
        before, record = commits(steady), steady.record()
        ids = {host: [one["Id"] for one in steady.there(host)] for host in steady.placement}
    finally:
        for pid in everything:
            os.kill(pid, signal.SIGCONT)
    assert process.wait(1200) != 0, first.read_text()
    assert (commits(steady), steady.record()) == (before, record)
    assert {host: [one["Id"] for one in steady.there(host)] for host in steady.placement} == ids


def children(parent: int) -> list[int]:
    """Processes below one, which Ansible puts into sessions of their own."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, todo = [], [parent]
    while todo:
        below = [pid for pid, above in pairs if above in todo]
        found += below
        todo = below
    return found
