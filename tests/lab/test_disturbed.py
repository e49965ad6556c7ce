# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts over three hosts that something happens to in the middle. Whatever it is: success is said of one release
everywhere alone, what is published is what runs, nothing goes on by itself, and a plain run afterwards converges.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from typing import Any, Iterator

import pytest
from support.fleet import wait_for

from lab.fleet import LabFleet

pytestmark = pytest.mark.timeout(3600)

DEPLOY = "deploy-workers.yml"
SHOWN = ("-e", "worker_progress=always")
TASK = re.compile(r"^TASK \[", re.MULTILINE)
# At how many points of a rollout its playbook is ended.
POINTS = int(os.environ.get("DRIFTGUARD_LAB_POINTS", "2"))


@dataclass(frozen=True)
class Disturbance:
    """What happens while host2 replaces its containers, how it is undone, and whether the rollout bears it."""

    fault: str
    undo: str = ""
    host: str = "host2"
    ssh_only: bool = False
    bears: bool = False


DISTURBANCES = {
    "its SSH is cut": Disturbance("cut", "mend", ssh_only=True),
    "its network is cut": Disturbance("cut", "mend"),
    "its engine is killed": Disturbance("kill-engine", "start-engine"),
    "its disk is full": Disturbance("fill", "empty"),
    "Redis is stopped": Disturbance("stop-redis", "start-redis", host=""),
    "Redis is emptied": Disturbance("empty-redis", host=""),
    "the registry hangs": Disturbance("pause-registry", "resume-registry", host="", bears=True),
    "the registry is gone": Disturbance("stop-registry", "start-registry", host="", bears=True),
}


@pytest.fixture(scope="module")
def steady(life: LabFleet) -> LabFleet:
    """A fleet that runs a commit; each of its hosts is a batch."""
    life.variables["worker_batches"] = ["1"]
    life.commit(obey=True)
    life.deploy().must_pass()
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
    finished = [one["result"] for one in fleet.evidence() if one["release"]["sha"] == new]
    assert "ok" not in finished or is_new


def under_way(fleet: LabFleet, *arguments: str) -> subprocess.Popen[str]:
    """A deploy of which host2 is replacing its containers."""
    process = fleet.start(DEPLOY, *SHOWN, *arguments)
    moment = re.compile(r"^host2 .* (stopping|starting)", re.MULTILINE)
    wait_for(lambda: moment.search(fleet.log.read_text()) or process.poll() is not None, "host2 to be rolled", 240)
    assert process.poll() is None, fleet.log.read_text()
    return process


@pytest.mark.parametrize("name", DISTURBANCES)
def test_whatever_happens_in_the_middle(steady: LabFleet, change: tuple[str, str], name: str) -> None:
    case, (old, new) = DISTURBANCES[name], change
    process = under_way(steady)
    more: dict[str, Any] = {"ssh_only": True} if case.ssh_only else {}
    steady.fault(case.fault, case.host, **more)
    try:
        status = process.wait(3000)
    finally:
        if case.undo:
            steady.fault(case.undo, case.host)
    said = steady.log.read_text()
    assert "Traceback" not in said, said
    if case.bears:
        assert status == 0, said
    told_the_truth(steady, old, new, status)


def working(fleet: LabFleet) -> list[str]:
    """What Ansible started on the hosts and still runs there."""
    asked = ("sh", "-c", "pgrep -af '[A]nsiballZ_worker|[a]sync_wrapper' || true")
    return [line for host in fleet.placement for line in fleet.on(host, *asked).splitlines()]


@pytest.fixture(scope="module")
def tasks(steady: LabFleet) -> int:
    """How many tasks a rollout has."""
    steady.commit(obey=True)
    steady.deploy().must_pass()
    return len(TASK.findall(steady.log.read_text()))


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("point", range(POINTS))
def test_ended_anywhere(
    steady: LabFleet, tasks: int, change: tuple[str, str], point: int, sign: signal.Signals,
) -> None:
    """Of the whole run nothing is left that works, and what was not done isn't said to be done."""
    number = 1 + tasks * (2 * point + 1 + (sign == signal.SIGINT)) // (2 * POINTS + 1)
    process = steady.start(DEPLOY, "-e", "worker_lease=90", "-e", "worker_lease_rolling=90")
    wait_for(
        lambda: len(TASK.findall(steady.log.read_text())) >= number or process.poll() is not None, "the point", 240)
    assert process.poll() is None, f"it was over before task {number}"
    os.killpg(process.pid, sign)
    assert process.wait(600) != 0
    wait_for(lambda: not working(steady), "what it started on the hosts to end", 60)
    told_the_truth(steady, *change, 1)
    proved = steady.verify("-e", f"worker_expected_sha={change[1]}")
    behind = {host for host, found in commits(steady).items() if found - {change[1]}}
    stale = [line for line in proved.output.splitlines() if "STALE" in line]
    assert {host for host in steady.placement if any(host in line for line in stale)} == behind, proved.output
    assert proved.status != 0 or not behind


def test_of_two_deploys_one_goes_on_and_the_other_builds_nothing(steady: LabFleet, change: tuple[str, str]) -> None:
    process = steady.start(DEPLOY)
    first = steady.log
    wait_for(lambda: steady.redis.client.exists(f"{steady.name}:lock:deploy"), "the lease to be taken", 60)
    run = steady.deploy().must_fail("held by")
    assert "TASK [Build, check and tag the images]" not in run.output
    assert process.wait(1200) == 0, first.read_text()
    assert steady.everywhere() == steady.wanted(change[1])


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
