# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a rollout: every way not to make it is told at once, with its log; nothing is called stable too soon."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import rollout_wait
from ansible_collections.driftguard.workers.plugins.module_utils.engine import End
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_wait import Prober, Watch
from support.containers import CONTAINER_ID, FakeEngine, container, inspected

LABEL = "com.docker.compose.project=demo-workers"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look a hundred times a second instead of four."""
    monkeypatch.setattr(rollout_wait, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(rollout_wait, "PROBE_SECONDS", 0.02)
    monkeypatch.setattr(rollout_wait, "PROBE_PATIENCE", 0.2)


def started(seconds_ago: float = 0.0) -> str:
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instance(key: str = CONTAINER_ID, health: str = "healthy", age: float = 100.0, **state: Any) -> dict[str, Any]:
    facts = inspected(key, number=int(key[0], 16))
    facts["State"].update({"Health": {"Status": health}, "StartedAt": started(age), **state})
    return facts


def changed(facts: dict[str, Any], restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {**facts, "RestartCount": restarts, "State": {**facts["State"], **state}}


class Looks:
    """Calls a function at each look, with the number of the look; for what happens while the watch is waiting."""

    def __init__(self, happens: Callable[[int], None] = lambda _look: None) -> None:
        self._happens = happens
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        self._happens(self.count)


def watch(
    engine: FakeEngine, looks: Any = None, wait_timeout: float = 5.0, stabilize: float = 0.0, **expected: int,
) -> list[Any]:
    real: Any = engine
    return Watch(
        real, expected or {"extractor": 1}, lambda: engine.container_ids([LABEL]), wait_timeout, stabilize,
        looks or Looks()).wait()


def test_what_is_healthy_and_long_up_is_stable_at_once() -> None:
    looks = Looks()
    assert watch(FakeEngine([instance()]), looks, stabilize=20) == []
    assert looks.count == 1


@pytest.mark.parametrize("health", ["", "none", "healthy"])
def test_without_a_health_check_running_is_healthy(health: str) -> None:
    assert watch(FakeEngine([instance(health=health)])) == []


def test_a_young_instance_has_to_stay_up() -> None:
    begun = time.monotonic()
    assert watch(FakeEngine([instance(age=0)]), stabilize=1.5) == []
    assert time.monotonic() - begun >= 0.5  # the engine's start time is read in whole seconds


FAILURES: dict[str, tuple[dict[str, Any], int, str]] = {
    "crashing": ({"Restarting": True, "Status": "restarting", "ExitCode": 3}, 0, "restarting with exit status 3"),
    "out of memory": (
        {"Status": "exited", "ExitCode": 137, "OOMKilled": True}, 0, "exited with exit status 137, out of memory"),
    "not started": ({"Status": "created"}, 0, "created with exit status 0"),
    "paused": ({"Status": "paused"}, 0, "paused with exit status 0"),
    "unhealthy": ({"Health": {"Status": "unhealthy"}}, 0, "its health check fails"),
    "restarted": ({"StartedAt": started(-1), "ExitCode": 1}, 1, "restarted (exit status 1)"),
    "restarted by hand": ({"StartedAt": started(-1)}, 0, "restarted (exit status 0)"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_goes_wrong_while_waiting_is_told_at_once(name: str) -> None:
    state, restarts, reason = FAILURES[name]
    facts = instance(age=0)
    engine = FakeEngine([facts])
    engine.said[CONTAINER_ID] = [f"line {number}" for number in range(50)]

    def happens(look: int) -> None:
        if look == 3:
            engine.containers[CONTAINER_ID] = changed(facts, restarts, **state)

    failures = watch(engine, Looks(happens), stabilize=60)
    assert [(one.service, one.container, one.reason) for one in failures] == [
        ("extractor", "demo-workers-extractor-12", reason)]
    assert failures[0].exit_code == state.get("ExitCode", 0)
    assert failures[0].log == [f"line {number}" for number in range(30, 50)]


def test_of_what_was_restarted_the_log_is_the_one_before_that() -> None:
    """Its new start has nothing to say of why, however much it says."""
    facts = instance(age=0)
    engine = FakeEngine([facts])
    engine.said[CONTAINER_ID] = ["starting", "boom", *(f"again {number}" for number in range(50))]

    def happens(look: int) -> None:
        if look == 3:
            engine.ended[CONTAINER_ID] = End(3, 2)
            engine.containers[CONTAINER_ID] = changed(facts, 1, StartedAt=started(-1))

    failures = watch(engine, Looks(happens), stabilize=60)
    assert [(one.reason, one.exit_code, one.log) for one in failures] == [
        ("restarted (exit status 3)", 3, ["starting", "boom"])]


def test_of_what_fails_later_the_log_is_all() -> None:
    engine = FakeEngine([changed(instance(), 1, Health={"Status": "unhealthy"})])
    engine.said[CONTAINER_ID], engine.ended[CONTAINER_ID] = ["starting", "boom", "again"], End(3, 2)
    assert [one.log for one in watch(engine)] == [["starting", "boom", "again"]]


@pytest.mark.parametrize("is_first_look", [True, False])
@pytest.mark.parametrize("status", ["restarting", "exited"])
def test_what_rests_may_run_again_before_its_log_is_read(status: str, is_first_look: bool) -> None:
    facts = instance(age=0)
    ended = changed(facts, 1, Status=status, ExitCode=3)
    engine = FakeEngine([ended if is_first_look else facts])
    engine.said[CONTAINER_ID], engine.ended[CONTAINER_ID] = ["starting", "boom", "again"], End(3, 2)

    def happens(look: int) -> None:
        if look == 3:
            engine.containers[CONTAINER_ID] = ended

    assert [(one.exit_code, one.log) for one in watch(engine, Looks(happens), stabilize=60)] == [
        (3, ["starting", "boom"])]


def test_earlier_restarts_of_a_kept_instance_are_forgiven() -> None:
    assert watch(FakeEngine([changed(instance(), restarts=7)])) == []


def test_every_failing_instance_is_named() -> None:
    failures = watch(
        FakeEngine([instance("1" * 64, "unhealthy"), instance("2" * 64), instance("3" * 64, "unhealthy")]), extractor=3)
    assert [one.container for one in failures] == ["demo-workers-extractor-1", "demo-workers-extractor-3"]


def test_an_instance_that_is_taken_away_is_missed() -> None:
    engine = FakeEngine([instance(age=0)])
    failures = watch(engine, Looks(lambda look: engine.containers.clear() if look == 2 else None), stabilize=60)
    assert [one.reason for one in failures] == ["was removed during the rollout"]


def test_who_is_late_is_named_when_the_time_is_up() -> None:
    engine = FakeEngine([instance("1" * 64, "starting"), instance("2" * 64)], version="25.0.1")
    failures = watch(engine, wait_timeout=0.05, extractor=2, ocr=1)
    assert [(one.container, one.reason) for one in failures] == [
        ("demo-workers-extractor-1", "not healthy within 0.05 s (still starting)"),
        ("ocr", "0 of 1 instances within 0.05 s")]


def test_staying_up_is_waited_for_beyond_the_time_to_become_healthy() -> None:
    assert watch(FakeEngine([instance(age=0)]), wait_timeout=0.01, stabilize=1.5) == []


def test_too_many_instances_are_not_what_was_asked_for() -> None:
    failures = watch(FakeEngine([instance("1" * 64), instance("2" * 64)]), wait_timeout=0.05)
    assert [one.reason for one in failures] == ["2 of 1 instances within 0.05 s"]


def test_other_services_of_the_project_are_not_waited_for() -> None:
    other = inspected("e" * 64, "gone", status="exited")
    assert watch(FakeEngine([instance(), other])) == []


def test_a_deployment_that_was_overtaken_stops_waiting() -> None:
    def overtaken() -> None:
        raise DriftguardError("fence", "number 7", "number 8", "nothing")

    with pytest.raises(DriftguardError, match="number 8"):
        watch(FakeEngine([instance(health="starting")]), overtaken)


@pytest.mark.parametrize(("check", "command"), [
    (["CMD", "test", "-f", "/ready"], "test -f /ready"),
    (["CMD-SHELL", "test -f /ready"], "/bin/sh -c test -f /ready")])
def test_an_old_engine_has_its_health_checks_run_for_it(check: list[str], command: str) -> None:
    facts = instance(health="starting")
    facts["Config"]["Healthcheck"] = {"Test": check}
    engine = FakeEngine([facts])
    answers = iter([1, 1, 0])
    engine.probes[CONTAINER_ID] = lambda: next(answers)
    assert watch(engine) == []
    assert engine.asked == [(command, CONTAINER_ID)] * 3


def test_a_new_engine_is_left_to_itself() -> None:
    engine = FakeEngine([instance(health="starting")], version="25.0.1")
    assert [one.reason for one in watch(engine, wait_timeout=0.1)] == ["not healthy within 0.1 s (still starting)"]
    assert engine.asked == []


def test_a_probe_of_a_container_that_went_away_has_not_passed() -> None:
    def gone() -> int:
        raise DriftguardError("Docker Engine", "an answer", "409", "see its log")

    engine = FakeEngine([instance(health="starting")])
    engine.probes[CONTAINER_ID] = gone
    assert [one.reason for one in watch(engine, wait_timeout=0.1)] == ["not healthy within 0.1 s (still starting)"]


def test_probes_that_hang_keep_nobody_from_being_healthy() -> None:
    release = threading.Event()
    engine = FakeEngine([instance(f"{key:x}" * 64, "starting") for key in range(1, 7)])
    for key in range(1, 6):
        engine.probes[f"{key:x}" * 64] = lambda: int(not release.wait(30))
    prober = Prober(engine)  # type: ignore[arg-type]
    containers = [container(f"{key:x}" * 64) for key in range(1, 7)]
    begun, passed = time.monotonic(), False
    while not passed and time.monotonic() - begun < 10:
        passed = [prober.passed(one, time.monotonic()) for one in containers][-1]
        time.sleep(0.01)
    release.set()
    assert passed


def test_a_probe_that_hangs_does_not_hold_the_process() -> None:
    program = textwrap.dedent("""
        import time
        from support.containers import FakeEngine, container
        from ansible_collections.driftguard.workers.plugins.module_utils.rollout_wait import Prober
        engine = FakeEngine()
        engine.probes["x"] = lambda: time.sleep(60) or 0
        Prober(engine).passed(container("x"), 0.0)
    """)
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"], check=True, timeout=50)
    assert time.monotonic() - begun < 40
