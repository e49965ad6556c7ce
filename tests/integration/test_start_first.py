# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order start-first: the old instances work until the new ones are proved, and are never stopped when those fail."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Iterator

import pytest
from support.engine_events import Recording
from support.extent import some
from support.fleet import Fleet, FleetRedis, some_fleet, wait_for

SERVICES: dict[str, Any] = {"alpha": {"order": "stop-first"}, "beta": {"replicas": 2}}
QUICK = ("-e", "worker_stabilize=6", "-e", "worker_wait_timeout=30", "-e", "worker_registration_timeout=15")


@pytest.fixture(scope="module")
def own_fleet(
    tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str
) -> Iterator[Fleet]:
    """A fleet whose betas start first; alpha says otherwise."""
    with some_fleet(tmp_path_factory.mktemp("first"), fleet_redis, base_reference, SERVICES) as made:
        defaults = made.variables["worker_service_defaults"]
        defaults["order"], defaults["stop_grace_period"] = "start-first", "6s"
        defaults["healthcheck"]["interval"] = "1s"
        yield made


@pytest.fixture
def first(own_fleet: Fleet) -> Fleet:
    """The fleet, deployed; its betas take the whole of their grace time. Every test leaves it whole."""
    if not own_fleet.containers():
        own_fleet.commit(ignore_sigterm="beta")
        own_fleet.deploy().must_pass()
    return own_fleet


def betas(fleet: Fleet) -> dict[str, tuple[str, int]]:
    """The betas by id: when they were started, and how often again."""
    return {
        one.id: (one.attrs["State"]["StartedAt"], one.attrs["RestartCount"]) for one in fleet.containers(service="beta")
    }


def converges(fleet: Fleet) -> None:
    """One more run is enough, and leaves nothing to do."""
    fleet.deploy().must_pass()
    assert (len(fleet.containers()), fleet.shas()) == (3, {fleet.git("rev-parse", "HEAD")})
    fleet.prove().must_pass()
    assert not fleet.heal(check=True).changed


def test_new_ones_are_healthy_before_the_first_old_one_is_stopped(first: Fleet) -> None:
    old = set(betas(first))
    alphas = {one.id for one in first.containers(service="alpha")}
    first.commit(ignore_sigterm="beta")
    with Recording(first) as seen:
        first.deploy().must_pass()
    new = set(betas(first))
    assert (len(old), len(new), old & new) == (2, 2, set())
    healthy = seen.of("health_status: healthy", new)
    assert len(healthy) >= 2
    assert max(healthy) < min(seen.of("kill", old))
    # The other order, in the same run.
    new_alphas = {one.id for one in first.containers(service="alpha")}
    assert max(seen.of("destroy", alphas)) < min(seen.of("create", new_alphas))
    assert first.evidence()[-1]["hosts"]["here"]["rollout"]["durations"]["drain"] >= 6
    names = first.ids()
    run = first.deploy().must_pass()
    assert (run.changed, first.ids()) == (0, names)


def test_another_order_recreates_nothing(first: Fleet) -> None:
    ids = first.ids()
    first.variables["worker_fleet_services"]["beta"]["order"] = "stop-first"
    try:
        run = first.deploy().must_pass()
        assert (first.ids(), run.changed > 0) == (ids, True), "it is a revision, and nothing is recreated for it"
    finally:
        del first.variables["worker_fleet_services"]["beta"]["order"]
    first.deploy().must_pass()
    assert first.ids() == ids


@pytest.mark.parametrize("seconds", some([0, 4], 4))
def test_a_bad_release_leaves_the_old_ones_without_a_signal(first: Fleet, seconds: int) -> None:
    old, good = betas(first), first.shas()
    first.commit(crash_after=seconds)
    with Recording(first) as seen:
        first.deploy(*QUICK).must_fail("boom", "exit status 3", "back on what it ran before")
    assert betas(first) == old
    assert seen.signals(set(old)) == []
    first.git("checkout", "-q", *good)
    converges(first)
    assert betas(first) == old


@pytest.mark.parametrize("behaviour", some(["mute", "lie"], "lie"))
def test_new_ones_that_dont_register_as_the_release_never_replace_old_ones(first: Fleet, behaviour: str) -> None:
    """Healthy they are, and of the right image: only what they register tells."""
    old, good = betas(first), first.shas()
    first.commit(**{behaviour: "f" * 40})  # who is mute is so by any value
    said = {"mute": "[UNREGISTERED] runs, but no live registration in Redis", "lie": "[STALE] registered fffffff"}
    with Recording(first) as seen:
        first.deploy(*QUICK).must_fail(said[behaviour], "back on what it ran before")
    assert betas(first) == old
    assert seen.signals(set(old)) == []
    first.git("checkout", "-q", *good)
    converges(first)


def test_the_module_itself_takes_the_new_ones_back(first: Fleet) -> None:
    """Without the role's way back: new ones that fail are gone, the old ones run."""
    old, good = betas(first), first.shas()
    first.commit(hang=True)
    first.deploy(*QUICK, "-e", "worker_wait_timeout=4").must_fail("not healthy within 4 s")
    rollback = first.evidence()[-1]["hosts"]["here"]["rollback"]
    assert not [step for step in rollback["steps"] if step["service"] == "beta" and step["action"] != "keep"]
    assert betas(first) == old
    first.git("checkout", "-q", *good)
    converges(first)


def modules(fleet: Fleet) -> list[int]:
    """Processes of the rollout module that works on a fleet."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            opened = [os.readlink(one) for one in (entry / "fd").iterdir()] if b"python" in line else []
        except OSError:
            continue
        if any(name.startswith(f"{fleet.root}/{fleet.name}/state/") for name in opened):
            found.append(int(entry.name))
    return found


def killed_when(fleet: Fleet, condition: Any, what: str) -> None:
    """Deploy, and kill -9 everything of the run at some point."""
    process = fleet.start("deploy-workers.yml", "-e", "worker_stabilize=8")
    wait_for(condition, what, 240)
    for pid in modules(fleet):
        os.kill(pid, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_once_the_new_ones_are_there(first: Fleet) -> None:
    old = set(betas(first))
    first.commit(ignore_sigterm="beta")
    killed_when(first, lambda: len(betas(first)) == 4, "the new betas")
    assert old <= set(betas(first))
    converges(first)
    assert not old & set(betas(first))


def test_killed_when_compose_begins(first: Fleet) -> None:
    first.commit(ignore_sigterm="beta")
    killed_when(first, lambda: len(betas(first)) > 2, "the first new beta")
    converges(first)


def test_killed_in_mid_drain_and_then_the_old_commit_again(first: Fleet) -> None:
    """Old ones that are being stopped still run, and must not be taken for the ones that are wanted."""
    before, old = first.git("rev-parse", "HEAD"), set(betas(first))
    first.commit(ignore_sigterm="beta")
    leaving = first.root / first.name / "state" / "leaving"

    def draining() -> bool:
        return leaving.exists() and bool(old & set(leaving.read_text().split()))

    killed_when(first, draining, "the old betas to be stopped")
    first.git("checkout", "-q", before)
    converges(first)
    assert not old & set(betas(first))


def test_killed_in_mid_drain(first: Fleet) -> None:
    old = set(betas(first))
    first.commit(ignore_sigterm="beta")
    leaving = first.root / first.name / "state" / "leaving"
    killed_when(
        first, lambda: leaving.exists() and bool(old & set(leaving.read_text().split())), "the old betas to be stopped")
    new = set(betas(first)) - old
    converges(first)
    assert set(betas(first)) == new, "what stood already was kept"


def test_a_singleton_cant_start_first(first: Fleet) -> None:
    first.variables["worker_fleet_services"]["alpha"] = {"singleton": True}
    try:
        first.deploy("--check").must_fail("service 'alpha', key order", "two of it would run side by side")
    finally:
        first.variables["worker_fleet_services"]["alpha"] = {"order": "stop-first"}
