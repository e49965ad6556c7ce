# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts of 14 services per host over more and more hosts of a lab, against raw Compose over plain SSH on the same.

All hosts share this machine's cores, so what the deployer itself needs is told apart: the processor time of the
playbook and of what it starts here.
"""

from __future__ import annotations

import os
import resource
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterator

import pytest
from lab.fleet import LabFleet
from lab.life import bring_down, bring_up
from lab.reach import connect
from lab.state import Lab

HOSTS = tuple(int(number) for number in os.environ.get("DRIFTGUARD_BENCH_HOSTS", "1,3,6").split(","))
ROUNDS = int(os.environ.get("DRIFTGUARD_BENCH_ROUNDS", "3"))
SERVICES = [f"service-{number:02}" for number in range(1, 15)]
WINDOW_SECONDS = 3.0
ROLLOUT_GOAL = 1.3
NOOP_GOAL_SECONDS = 10.0

pytestmark = pytest.mark.timeout(7200)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of as many hosts as are needed."""
    name = f"bench{secrets.token_hex(2)}"
    try:
        yield bring_up(name, max(HOSTS))
    finally:
        bring_down(name)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """How long it takes, and the processor time of what this process started for it."""
    wall, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compose(fleet: LabFleet, *more: str) -> None:
    """Raw compose on every host at once."""
    file = f"/opt/driftguard/{fleet.name}/current/compose.yml"
    words = ("sudo", "docker", "compose", "-p", fleet.project, "-f", file, "up", "-d", "--force-recreate", *more)

    def recreate(host: str) -> None:
        # An engine before 25 tries a health check every 30 s only.
        done = connect(fleet.lab, fleet.lab.host(host), *words, seconds=300)
        assert done.returncode == 0, done.stderr

    with ThreadPoolExecutor(len(fleet.placement)) as pool:
        list(pool.map(recreate, fleet.placement))


@pytest.mark.parametrize("number", HOSTS)
def test_hosts(lab: Lab, tmp_path: Path, number: int) -> None:
    """A rollout with its proof, all hosts in one batch; and a run that has nothing to do."""
    placement = {f"host{place}": SERVICES for place in range(1, number + 1)}
    fleet = LabFleet(lab, tmp_path / "fleet", placement, services=dict.fromkeys(SERVICES))
    fleet.variables["worker_batches"] = ["100%"]
    again = ("-e", f"worker_services={','.join(SERVICES)}", "-e", f"worker_stabilize={WINDOW_SECONDS}")
    sides: dict[str, Callable[[], object]] = {
        "docker compose over SSH, in parallel": lambda: compose(fleet),
        "the same, until all are healthy": lambda: compose(fleet, "--wait"),
        "deploy-workers.yml, all recreated": lambda: fleet.deploy(*again).must_pass(),
        "deploy-workers.yml, nothing to do": lambda: fleet.deploy().must_pass(),
    }
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    try:
        fleet.deploy().must_pass()
        for _ in range(ROUNDS):
            for side, work in sides.items():
                found[side].append(seconds(work))
    finally:
        fleet.close()
    print(f"\n{number} hosts, {len(SERVICES)} services each ({os.cpu_count()} cores, {ROUNDS} rounds)")
    medians = {
        side: [statistics.median(values) for values in zip(*pairs, strict=True)] for side, pairs in found.items()}
    for side, (wall, cpu) in medians.items():
        print(f"  {side:<40} {wall:7.1f} s, deployer's processor {cpu:6.1f} s, {cpu / number:5.1f} s per host")
    raw, healthy, rolled, quiet = (medians[side][0] for side in sides)
    print(f"  rollout without its window / compose: {(rolled - WINDOW_SECONDS) / raw:.2f} (goal: {ROLLOUT_GOAL})")
    print(f"  rollout without its window / compose that waits: {(rolled - WINDOW_SECONDS) / healthy:.2f}")
    print(f"  nothing to do: {quiet:.1f} s (goal over 6 hosts: {NOOP_GOAL_SECONDS:g} s)")
