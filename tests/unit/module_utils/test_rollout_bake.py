# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Baking: the whole time is watched, restarts and failed jobs decide, and what can't be judged passes and says so."""

from __future__ import annotations

import time
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import metrics_gateway, rollout_bake, rollout_wait
from ansible_collections.driftguard.workers.plugins.module_utils.bake_limits import Limits
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FailedResult
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_bake import Bake
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_wait import Watch
from support.containers import CONTAINER_ID, FakeEngine, inspected

LABEL = "com.docker.compose.project=demo-workers"
NAME = "driftguard_worker_jobs_total"


class Host:
    """One instance that is healthy and stable; at each look something may happen to it."""

    def __init__(self) -> None:
        self.facts = inspected()
        self.facts["NetworkSettings"] = {"Networks": {"b": {"IPAddress": "10.0.0.2"}, "a": {"IPAddress": ""}}}
        self.engine = FakeEngine([self.facts], version="25.0.0")
        self.looks = 0
        self.happens: Callable[[int], None] = lambda _look: None
        self.answers: Iterator[str | None] = iter(())
        self.asked: list[Any] = []

    def fetch_all(self, places: Any, port: int, path: str) -> dict[str, str | None]:
        self.asked.append((dict(places), port, path))
        return {name: next(self.answers, None) for name in places}

    def safe_point(self) -> None:
        self.looks += 1
        self.happens(self.looks)

    def restart(self, count: int, status: str = "running", started: str = "") -> None:
        self.engine.containers[CONTAINER_ID] = {
            **self.facts, "RestartCount": count,
            "State": {**self.facts["State"], "Status": status, "Restarting": status == "restarting", "ExitCode": 3,
                      "StartedAt": started or self.facts["State"]["StartedAt"]}}

    def bake(self, **limits: Any) -> dict[str, Any]:
        engine: Any = self.engine
        watch = Watch(
            engine, {"extractor": 1}, lambda: self.engine.container_ids([LABEL]), 5.0, 0.0, self.safe_point)
        assert watch.wait() == []
        self.looks = 0
        bake = Bake(watch, Limits(**{"seconds": 0.2, **limits}), "fleet demo on host1")
        try:
            bake.run()
        finally:
            self.values = bake.values
        return bake.values


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(rollout_bake, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(rollout_wait, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(rollout_bake, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(metrics_gateway, "fetch_all", made.fetch_all)
    return made


def growing(done: int, failed: int) -> Iterator[str]:
    """Metrics that grow by so much from the first answer to all later ones."""
    for look in range(10_000):
        factor = min(look, 1)
        yield (f'{NAME}{{queue="q",outcome="completed"}} {70 + done * factor}\n'
               f'{NAME}{{queue="q",outcome="dead"}} {30 + failed * factor}\n')


def test_it_is_watched_for_the_whole_time_and_asked_where_it_is(host: Host) -> None:
    begun = time.monotonic()
    values = host.bake(seconds=0.5)
    assert time.monotonic() - begun >= 0.5
    assert host.asked[0] == ({"demo-workers-extractor-1": ("10.0.0.2",)}, 8081, "/metrics")
    assert values.pop("seconds") >= 0.5
    assert values == {
        "instances": 1, "restarts": 0, "jobs": 0, "failed": 0, "judged": False, "not_judged": "no rate was asked for",
        "without_metrics": ["demo-workers-extractor-1"]}


@pytest.mark.parametrize(("done", "failed", "most", "passes"), [
    (80, 20, 0.2, True), (79, 21, 0.2, False), (100, 0, 0.0, True), (99, 1, 0.0, False), (0, 50, 1.0, True),
    (71, 29, 0.29, True), (15, 4, 0.0, True)])
def test_the_rate_within_the_bake_decides(host: Host, done: int, failed: int, most: float, passes: bool) -> None:
    """Not the jobs from before: 30 of 100 of those failed. And 19 are too few."""
    host.answers = growing(done, failed)
    if not passes:
        with pytest.raises(DriftguardError) as error:
            host.bake(max_failed_jobs=most)
        assert f"{failed} of {done + failed} failed" in error.value.found
        assert f"demo-workers-extractor-1 {failed} of {done + failed}" in error.value.found
    else:
        host.bake(max_failed_jobs=most)
    assert (host.values["jobs"], host.values["failed"]) == (done + failed, failed)
    assert host.values["judged"] == (done + failed >= 20)


def test_without_metrics_it_passes_and_says_so(host: Host) -> None:
    values = host.bake(max_failed_jobs=0.0)
    assert (values["judged"], values["not_judged"]) == (False, "no instance has metrics of its jobs")


BAD: dict[str, Callable[[Host], None]] = {
    "restarted": lambda host: host.restart(1, started="2030-01-02T03:04:05Z"),
    "restarting": lambda host: host.restart(1, "restarting"),
    "by hand": lambda host: host.restart(0, started="2030-01-02T03:04:05Z"),
    "gone": lambda host: host.engine.containers.clear(),
    "paused": lambda host: host.restart(0, "paused"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_instance_that_doesnt_stay_ends_the_bake_at_once(host: Host, name: str) -> None:
    host.happens = lambda look: BAD[name](host) if look == 3 else None
    host.engine.said[CONTAINER_ID] = ["boom"]
    with pytest.raises(FailedResult) as error:
        host.bake(seconds=600)
    assert "boom" in error.value.found
    assert "at most 0 restarts" in error.value.expected
    assert error.value.values["failures"][0]["service"] == "extractor"
    assert host.values["seconds"] < 600


def test_a_restart_that_is_allowed_is_counted_once(host: Host) -> None:
    """It is due, then it has come: the engine tells of the one restart in two ways."""
    def happens(look: int) -> None:
        if look == 3:
            host.restart(1, "restarting")
        if look == 5:
            host.restart(1, started="2026-01-02T03:04:06Z")

    host.happens = happens
    assert host.bake(max_restarts=1)["restarts"] == 1


def test_one_more_than_allowed_is_not(host: Host) -> None:
    def happens(look: int) -> None:
        if look in (3, 5):
            host.restart(look // 2, started=f"2026-01-02T03:04:0{look}Z")

    host.happens = happens
    with pytest.raises(FailedResult):
        host.bake(seconds=600, max_restarts=1)
    assert host.values["restarts"] == 2


def test_who_was_restarted_at_the_end_has_to_stand_again(host: Host) -> None:
    """It came back and is unhealthy, after the last look of the bake."""
    def happens(look: int) -> None:
        if look == 3:
            host.restart(1, "restarting")

    host.happens = happens
    with pytest.raises(FailedResult, match="not healthy within"):
        host.bake(max_restarts=1)


def test_what_it_passed_before_its_restart_says_nothing(host: Host) -> None:
    """Engines without a start interval: the health check is tried from outside, and again after a restart."""
    host.engine.version = "20.10.24"
    host.facts["State"]["Health"]["Status"] = "starting"

    def happens(look: int) -> None:
        if look == 3:
            host.engine.probes[CONTAINER_ID] = 1
            host.restart(1, started="2026-01-02T03:04:06Z")

    host.bake()
    host.happens = happens
    with pytest.raises(FailedResult, match="not healthy within"):
        host.bake(max_restarts=1)


def test_an_overtaken_deployment_stops_baking(host: Host) -> None:
    def happens(look: int) -> None:
        if look == 4:
            raise DriftguardError("fence", "number 7", "number 8", "start a new deploy")

    host.happens = happens
    with pytest.raises(DriftguardError, match="number 8"):
        host.bake(seconds=600)


OPTIONS: dict[str, Any] = {"bake": 60.0, "max_restarts": 0, "max_failed_jobs": 0.1, "min_jobs": 20}


@pytest.mark.parametrize(("option", "value"), [
    ("bake", -1.0), ("bake", float("nan")), ("bake", 1e9), ("bake", 0.0), ("max_restarts", -1), ("min_jobs", 0),
    ("min_jobs", 10**20), ("max_failed_jobs", -0.1), ("max_failed_jobs", 1.1), ("max_failed_jobs", float("nan"))])
def test_what_cant_be_asked_is_refused(option: str, value: Any) -> None:
    assert Limits.of(OPTIONS) == Limits(60.0, 0, 0.1, 20)
    with pytest.raises(DriftguardError) as error:
        Limits.of({**OPTIONS, option: value})
    assert all((error.value.subject, error.value.expected, error.value.found, error.value.remedy))
