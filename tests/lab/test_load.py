# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three rollouts and a rollback over three hosts, each under another fault, while ten thousand jobs are in flight.

The tests are chapters, in order; the last one judges every job. ``DRIFTGUARD_LOAD_JOBS`` is how many are added at once.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import time
from collections import Counter
from typing import Callable, Iterator

import pytest
from support.fleet import PROJECT, Run
from support.redis_server import wait_until

from lab.fleet import PATIENCE, LabFleet
from lab.state import Lab
from lab.traffic import Publication, Start, Traffic, stale

pytestmark = [pytest.mark.timeout(2400), pytest.mark.long]

JOBS = int(os.environ.get("DRIFTGUARD_LOAD_JOBS", "10000"))
APPLICATION = PROJECT / "tests" / "apps" / "ledger"
COMMON = {"concurrency": 4, "memory": "192M"}
SERVICES = {"alpha": {**COMMON}, "beta": {**COMMON, "replicas": 2}}
OUTAGE = 5.0


@pytest.fixture(scope="module")
def ledger(lab: Lab, tmp_path_factory: pytest.TempPathFactory, reference_image: str) -> Iterator[LabFleet]:
    fleet = LabFleet(
        lab, tmp_path_factory.mktemp("load") / "fleet", base=reference_image, services=SERVICES,
        application=APPLICATION)
    defaults = fleet.variables["worker_service_defaults"]
    defaults.update({"stop_grace_period": "10s", "drain_time": "5s"})
    del defaults["healthcheck"]
    try:
        # Not slow, but every connection follows what is said later.
        fleet.fault("slow", "host1", milliseconds=0)
        yield fleet
    finally:
        for name, host in (("mend", "host3"), ("start-engine", "host2"), ("start-redis", ""), ("fast", "host1")):
            fleet.fault(name, host)
        fleet.close()


@pytest.fixture(scope="module")
def traffic(ledger: LabFleet) -> Iterator[Traffic]:
    """On from the first deploy until all chapters are over; all jobs are there before the second."""
    with Traffic(ledger, JOBS) as traffic:
        ledger.deploy().must_pass()
        wait_until(lambda: len(traffic.added) >= JOBS, "all entries to be added", 60)
        wait_until(lambda: traffic.done() > 0, "the first to be booked")
        yield traffic


def registered(fleet: LabFleet, sha: str, host: str = "") -> list[str]:
    """States of the instances of a commit, on a host or all."""
    client = fleet.redis.client
    found = [client.hgetall(key) for key in client.scan_iter(match=f"{fleet.name}:worker:*:*:version", count=1000)]
    return [one["state"] for one in found if one.get("gitSha") == sha and host in ("", one["host"])]


def finished(fleet: LabFleet, process: subprocess.Popen[str]) -> Run:
    """A run that was started, at its end."""
    return Run(process.wait(PATIENCE), fleet.log.read_text())


def go_on(traffic: Traffic) -> None:
    """Wait until more is booked than now."""
    before = traffic.done()
    wait_until(lambda: traffic.done() > before + 50, "more to be booked", 60)


def settled(fleet: LabFleet, sha: str) -> None:
    """Every container of every host runs a commit, and it alone is published."""
    assert fleet.everywhere() == fleet.wanted(sha)
    record = fleet.record()
    assert (record["phase"], [release["sha"] for release in record["allowed"]]) == ("settled", [sha])


def test_a_host_is_cut_off_in_mid_rollout(ledger: LabFleet, traffic: Traffic) -> None:
    """Its workers still reach Redis. They are fenced, and the others do their work; a plain run heals it."""
    traffic.mark("a host cut off")
    old, new = ledger.git("rev-parse", "HEAD"), ledger.commit()
    process = ledger.start("deploy-workers.yml", "-e", "worker_unreachable=continue")
    wait_until(lambda: registered(ledger, new, "host1"), "the canary to move", 120)
    ledger.fault("cut", "host3", ssh_only=True)
    finished(ledger, process).must_fail(
        "was published, but not every host finished", "host3: what runs there on another release is fenced")
    assert [release["sha"] for release in ledger.record()["allowed"]] == [new]
    wait_until(lambda: {*registered(ledger, old)} == {"fenced"}, "the workers that were left behind to be fenced")
    go_on(traffic)
    assert registered(ledger, old, "host3") == ["fenced", "fenced"]
    ledger.fault("mend", "host3")
    traffic.mark("healed")
    ledger.deploy().must_pass()
    settled(ledger, new)


def test_an_engine_is_killed_in_mid_rollout(ledger: LabFleet, traffic: Traffic) -> None:
    traffic.mark("an engine killed")
    new = ledger.commit()
    process = ledger.start("deploy-workers.yml")
    wait_until(lambda: registered(ledger, new, "host2"), "the second host to move", 120)
    ledger.fault("kill-engine", "host2")
    finished(ledger, process).must_fail("host2")
    go_on(traffic)
    ledger.fault("start-engine", "host2")
    traffic.mark("healed")
    ledger.deploy().must_pass()
    settled(ledger, new)


def test_redis_is_restarted_in_mid_rollout_over_slow_ssh(ledger: LabFleet, traffic: Traffic) -> None:
    traffic.mark("Redis restarted, SSH slow")
    new = ledger.commit()
    ledger.fault("slow", "host1", milliseconds=200)
    process = ledger.start("deploy-workers.yml")
    wait_until(lambda: registered(ledger, new, "host1"), "the canary to move", 120)
    ledger.fault("stop-redis")
    time.sleep(OUTAGE)
    ledger.fault("start-redis")
    # It may have been between two questions to Redis: then it got through.
    run = finished(ledger, process)
    assert "Traceback" not in run.output, run.output
    go_on(traffic)
    ledger.fault("fast", "host1")
    traffic.mark("healed")
    ledger.deploy().must_pass()
    settled(ledger, new)


def test_back_again_while_workers_are_killed(ledger: LabFleet, traffic: Traffic) -> None:
    """``kill -9``, as when they run out of memory: what each had in hand is another's when its lock has run out."""
    traffic.mark("back, workers killed")
    new, old = ledger.git("rev-parse", "HEAD", "HEAD~1").split()
    kill_one(ledger, "host2")
    process = ledger.start("rollback-workers.yml")
    wait_until(lambda: registered(ledger, old, "host1"), "the canary to go back", 120)
    kill_one(ledger, "host3")
    finished(ledger, process).must_pass()
    settled(ledger, old)
    assert registered(ledger, new) == []


def kill_one(fleet: LabFleet, host: str) -> None:
    """Kill a worker of a host; its engine starts it again."""
    one = random.choice(fleet.there(host))
    fleet.on(host, "kill", "-KILL", str(one["State"]["Pid"]))


def test_every_job_is_done_once_and_none_by_a_stale_release(
    ledger: LabFleet, traffic: Traffic, record_property: Callable[[str, object], None],
) -> None:
    traffic.mark("the rest")
    go_on(traffic)
    traffic.stop_adding()
    wait_until(lambda: not traffic.left(), "all entries to be through", 300)
    assert len(traffic.added) >= JOBS
    completed, bookings, starts = traffic.completed(), traffic.bookings(), traffic.starts()
    assert traffic.added - {*completed} == set()
    assert len(completed) == len(traffic.added)
    assert Counter(booking.entry for booking in bookings) == Counter(traffic.added)
    assert {start.entry for start in starts} == traffic.added
    assert stale(starts, traffic.publications) == []
    assert len({start.release for start in starts}) == 4, "each release did some"
    told = {**figures(traffic), "entries": len(bookings), "started again": len(starts) - len(bookings)}
    for name, value in told.items():
        record_property(name, value)
    print(*(f"{name}: {value}" for name, value in told.items()), sep="\n")


def figures(traffic: Traffic) -> dict[str, object]:
    """What a reader wants to know of the run."""
    ends = [moment for _name, moment in traffic.marks[1:]] + [time.time()]
    found: dict[str, object] = {}
    for (name, begin), end in zip(traffic.marks, ends, strict=True):
        rates = traffic.rates(begin, end) or [0.0]
        found[f"{len(found) + 1}. {name}"] = (
            f"{end - begin:.0f} s, entries a second: median {statistics.median(rates):.1f}, least {min(rates):.1f}")
    drains = sorted(traffic.drains) or [0.0]
    looks = sorted((one.at - one.after) / 1e6 for one in traffic.publications[1:])
    return {**found, "publications": len(traffic.publications), "seen within, median and longest, s":
            f"{statistics.median(looks):.3f} {looks[-1]:.3f}",
            "drains, median and longest, s": f"{len(drains)}: {statistics.median(drains):.1f} {drains[-1]:.1f}"}


def test_the_judge_finds_a_stale_start() -> None:
    first, second = Publication(0, 100, frozenset("a")), Publication(200, 210, frozenset("b"))
    starts = [Start(150, "fine", "a"), Start(205, "either", "a"), Start(206, "either", "b"), Start(211, "late", "a"),
              Start(199, "early", "b"), Start(50, "before", "c")]
    assert [start.entry for start in stale(starts, [first, second])] == ["late", "early", "before"]
