# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_rollout on one host, up to where compose would be called: what it plans, refuses, predicts and says."""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import rollout_change
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FailedResult
from ansible_collections.driftguard.workers.plugins.module_utils.record import Record, ReleaseRef
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_keep import bring_or_keep
from support.containers import CONTAINER_ID, RELEASE_ID, SHA, inspected
from support.rollout_host import DESIRED, PREDICTED, SERVICE, Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_right_host_is_left_alone(host: Host, check_mode: bool) -> None:
    result = host.rollout(check_mode)
    assert (result.changed, result.after, result.values["moved"]) == (False, "", False)
    assert result.values["steps"] == [{
        "action": "keep", "service": "extractor", "reason": "as wanted", "container": "demo-workers-extractor-1",
        "id": "c" * 12}]
    assert (result.values["revision"], result.values["previous"]) == (7, None)
    assert result.values["release"] == {"release_id": RELEASE_ID, "sha": SHA}
    assert set(result.values["durations"]) == (set() if check_mode else {"recreate", "stabilize"})


def test_check_mode_says_what_would_happen_and_leaves_no_trace(host: Host, tmp_path: Path) -> None:
    host.engine.containers[CONTAINER_ID]["HostConfig"]["Memory"] = 1
    before = sorted(tmp_path.rglob("*"))
    result = host.rollout(True)
    assert result.changed
    assert result.after == "demo-workers-extractor-1: recreate (memory limit is 1 bytes, not 67108864)\n"
    assert result.before == "demo-workers-extractor-1\n"
    assert (sorted(tmp_path.rglob("*")), host.engine.stopped) == (before, [])


def test_a_prediction_needs_no_revision_on_disk(host: Host) -> None:
    result = host.rollout(True, revision="99", desired=DESIRED)
    assert (result.changed, result.values["revision"]) == (False, 99)
    not_built = host.rollout(True, revision="99", desired=PREDICTED)
    assert [step["reason"] for step in not_built.values["steps"]] == ["STALE: new release, not built yet"]
    assert not_built.values["release"] is None


@pytest.mark.parametrize(("revision", "desired"), [
    ("current", DESIRED), ("", DESIRED), ("7", {"release": {}}), ("7", {"services": {}}),
    ("7", {**DESIRED, "release": "x"}),
    ("7", {**DESIRED, "services": ["x"]}), ("7", {**DESIRED, "services": {"extractor": {"replicas": 1}}}),
    ("7", {**DESIRED, "services": {"extractor": {**SERVICE, "replicas": "many"}}}),
])
def test_a_prediction_that_is_none_is_refused(host: Host, revision: str, desired: Any) -> None:
    assert "options desired and revision" in str(host.refused(True, revision=revision, desired=desired))


def test_a_run_reads_the_revision_and_never_the_prediction(host: Host) -> None:
    assert "revision 99" in str(host.refused(revision="99", desired=DESIRED))


@pytest.mark.parametrize("check_mode", [False, True])
def test_containers_that_nobody_asked_for_are_an_error(host: Host, check_mode: bool) -> None:
    host.engine.containers["e" * 64] = inspected("e" * 64, project="elsewhere")
    error = host.refused(check_mode)
    assert "elsewhere-extractor-1 (of project elsewhere)" in error.found
    assert isinstance(error, FailedResult)
    assert [step["container"] for step in error.values["extras"]] == ["elsewhere-extractor-1"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_network_or_path_that_is_missing_is_named_before_anything_stops(
    host: Host, tmp_path: Path, check_mode: bool,
) -> None:
    host.engine.networks.clear()
    assert "network common to be there" in str(host.refused(check_mode))
    host.engine.networks.add("common")
    lacking = tmp_path / "lacking"
    host.write(8, {"extractor": {**SERVICE, "paths": [str(tmp_path), str(lacking)]}})
    assert f"path {lacking} to be there" in str(host.refused(check_mode, revision="8"))
    lacking.mkdir()
    assert host.rollout(check_mode, revision="8")


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_volume_that_is_missing_is_named_before_anything_stops(host: Host, check_mode: bool) -> None:
    host.write(8, {"extractor": {**SERVICE, "volumes": ["shop_data", "shop_gone"]}})
    assert "volume shop_gone to be there" in str(host.refused(check_mode, revision="8"))
    host.write(9, {"extractor": {**SERVICE, "volumes": ["shop_data"]}})
    assert host.rollout(check_mode, revision="9")


def test_a_damaged_proved_revision_keeps_a_host_from_no_other(host: Host) -> None:
    """Its remedy is to remove it, and to deploy again."""
    host.write(8, DESIRED["services"])
    host.revisions.settle(host.revisions.load(7), 1)
    shutil.rmtree(host.root / "demo" / "revisions" / "7")
    assert host.rollout(revision="8").values["revision"] == 8
    host.rollout(state="settled", revision="8")
    assert host.revisions.current() == 8


@pytest.mark.parametrize("check_mode", [False, True])
def test_an_image_that_is_missing_is_named_before_anything_stops(host: Host, check_mode: bool) -> None:
    host.engine.image_list.clear()
    assert f"variant base of release {RELEASE_ID}" in str(host.refused(check_mode))


def test_named_services_may_leave_nothing_else_to_do(host: Host) -> None:
    host.write(8, {"extractor": SERVICE, "ocr": SERVICE})
    error = host.refused(True, revision="8", services=["extractor"])
    assert "ocr: create (missing)" in error.found
    assert host.rollout(True, revision="8", services=["extractor", "ocr"]).changed
    # One whose instances are on other hosts.
    assert not host.rollout(True, services=["nobody"]).changed
    assert "ocr: create (missing)" in host.refused(True, revision="8", services=["nobody"]).found


def test_it_stops_where_what_it_is_a_part_of_may_not_go_on(host: Host) -> None:
    def gone() -> None:
        raise DriftguardError("the steps on this host", "somebody who waits for them", "nobody", "run again")

    engine: Any = host.engine
    with pytest.raises(DriftguardError, match="somebody who waits"):
        bring_or_keep(engine, {**host.options, "state": "absent"}, False, gone)
    assert host.engine.stopped == []


def test_what_it_hears_while_it_waits_for_its_turn_is_no_news_afterwards(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its controller was heard last at the beginning of a long wait for the host's lock."""
    now, looks = [1000.0], threading.Semaphore(0)
    (tmp_path / "beat").write_text("1\n")

    @contextmanager
    def waits(*_arguments: Any) -> Iterator[int]:
        for _ in range(2):
            assert looks.acquire(timeout=10)
        now[0] += 21
        yield 0

    monkeypatch.setattr(HostRecords, "lock", waits)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _seconds: looks.release())
    error = host.refused(state="absent", attendance=str(tmp_path), heartbeat=20.0)
    assert "nothing heard of it for 20 s" in error.found


@pytest.mark.parametrize("option", ["wait_timeout", "stabilize", "lock_wait", "bake"])
@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e9])
def test_seconds_that_no_one_can_wait(host: Host, option: str, seconds: float) -> None:
    assert f"option {option}" in str(host.refused(False, **{option: seconds}))


def test_only_what_is_new_is_baked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the proved revision where nothing changes: a second run has nothing to wait for."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    assert host.rollout(bake=0.01).values["bake"]["instances"] == 1
    assert "bake" not in host.rollout(True, bake=0.01).values
    assert "bake" not in host.rollout().values
    host.rollout(state="settled")
    assert "bake" not in host.rollout(bake=0.01).values


def test_a_bake_that_fails_says_what_was_seen(host: Host) -> None:
    health = host.engine.containers[CONTAINER_ID]["State"]["Health"]

    def asked(labels: Iterable[str] = ()) -> list[str]:
        return [CONTAINER_ID]

    def at_work(container_id: str) -> Any:
        looks.append(container_id)
        health["Status"] = "unhealthy" if len(looks) > 6 else "healthy"
        return dict(host.engine.containers[container_id])

    looks: list[str] = []
    host.engine.container_ids = asked  # type: ignore[method-assign]
    host.engine.container = at_work  # type: ignore[method-assign]
    with pytest.raises(FailedResult, match="health check fails after") as error:
        host.rollout(bake=600.0)
    assert error.value.values["bake"]["restarts"] == 0
    assert {"recreate", "stabilize", "bake"} == set(error.value.values["durations"])


@pytest.mark.parametrize("services", [{"extractor": SERVICE}, {"extractor": {**SERVICE, "order": "start-first"}}])
def test_the_order_is_the_revisions(host: Host, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that works and is to be recreated goes late, or at first."""
    host.write(8, services)
    gone: list[list[str]] = []

    def carry_out(_engine: Any, plan: Any, *_: Any) -> None:
        gone.append([one.id for one in plan.leaving()])
        raise DriftguardError("this test", "no more", "more", "stop here")

    monkeypatch.setattr(rollout_change, "carry_out", carry_out)
    with pytest.raises(DriftguardError, match="stop here"):
        host.rollout(revision="8", services=["extractor"])
    assert gone == [[] if "order" in services["extractor"] else [CONTAINER_ID]]


def test_an_overtaken_deployment_touches_nothing(host: Host) -> None:
    host.rollout(generation=9)
    host.engine.containers[CONTAINER_ID]["HostConfig"]["Memory"] = 1
    assert "number 9 was there" in host.refused(generation=8).found


def test_a_failure_says_why_and_hides_secrets(host: Host) -> None:
    secrets = host.root / "demo" / "secrets" / "10001"
    secrets.mkdir(parents=True)
    (secrets / "token").write_text("s3cret-token\n")
    host.engine.containers[CONTAINER_ID]["State"]["Health"]["Status"] = "starting"
    host.engine.probes[CONTAINER_ID] = 1
    host.engine.said[CONTAINER_ID] = [f"line {number}" for number in range(20)] + ["\x1b[31mtoken=s3cret-token"]
    with pytest.raises(FailedResult) as error:
        host.rollout()
    assert error.value.subject == "service extractor on host1, container demo-workers-extractor-1"
    assert "it said: line 16 | line 17 | line 18 | line 19 | ?[31mtoken=********" in error.value.found
    assert error.value.changed is False
    failure = error.value.values["failures"][0]
    assert (failure["reason"], failure["log"][-1]) == (
        "not healthy within 0.1 s (still starting)", "?[31mtoken=********")
    assert "s3cret" not in json.dumps(error.value.values) + str(error.value)


def test_settling_moves_current_once(host: Host) -> None:
    predicted = host.rollout(True, state="settled")
    assert (predicted.changed, host.revisions.current()) == (True, None)
    assert host.rollout(state="settled").changed
    assert host.revisions.current() == 7
    for check_mode in (True, False):
        assert not host.rollout(check_mode, state="settled").changed


@pytest.mark.parametrize("current", [None, "7"])
def test_settling_removes_secrets_that_no_revision_names(host: Host, current: str | None) -> None:
    if current:
        host.rollout(state="settled", revision=current)
    directory = host.root / "demo/secrets/10001"
    directory.mkdir(parents=True)
    named, unnamed = directory / "token.0123456789abcdef", directory / "token.fedcba9876543210"
    for path in (named, unnamed):
        path.write_text("s3cret-token")
    host.revisions.write(8, f"secrets:\n  token.10001:\n    file: {named}\n", "{}")
    host.rollout(True, state="settled")
    host.rollout()
    assert unnamed.exists()
    host.rollout(state="settled")
    assert list(directory.iterdir()) == [named]


def test_what_was_published_is_taken_up_once_and_only_if_nothing_came_since(host: Host) -> None:
    """A run that is killed between publishing and settling leaves ``current`` behind."""
    host.rollout(state="settled", revision="7", generation=7)
    host.write(8, DESIRED["services"])
    host.write(9, DESIRED["services"])
    assert host.rollout(True, state="settled", revision="8", published=8).changed
    done = host.rollout(state="settled", revision="8", published=8)
    assert (done.changed, done.values["revision"], done.values["previous"]) == (True, 8, 7)
    # Killed in the middle of settling: the history says it, the link doesn't.
    link = host.root / "demo" / "current"
    link.unlink()
    link.symlink_to("revisions/7")
    assert host.rollout(state="settled", revision="8", published=8).values["revision"] == host.revisions.current() == 8
    host.rollout(state="settled", revision="9", generation=9)
    for check_mode in (True, False):
        # An older publication, one from before the last settling, and one whose revision isn't kept here.
        for revision, published in (("8", 8), ("7", 8), ("12", 12)):
            again = host.rollout(check_mode, state="settled", revision=revision, published=published)
            assert (again.changed, again.values["revision"]) == (False, 9)
    assert host.revisions.current() == 9


def record_of(phase: str, release_id: str) -> Record:
    release = ReleaseRef(release_id, SHA)
    return Record("demo", 9, phase, release, (release,))


@pytest.mark.parametrize(("phase", "release_id", "found"), [
    ("settled", RELEASE_ID, 6), ("rolling", RELEASE_ID, 7), ("settled", "0123456789ab.ffffffffffff", 7)])
def test_before_a_release_that_was_never_published_is_the_one_proved_last(
    host: Host, phase: str, release_id: str, found: int,
) -> None:
    host.write(6, DESIRED["services"])
    for number in (6, 7):
        host.rollout(state="settled", revision=str(number))
    HostRecords(host.root, "demo").write(record_of(phase, release_id))
    assert host.rollout(True, revision="previous", desired=None).values["revision"] == found


def test_the_one_proved_last_is_passed_over_when_it_is_fenced(host: Host) -> None:
    """A fence leaves the host's record rolling, so that it looks as after a run that was cut off."""
    host.write(6, DESIRED["services"])
    for number in (6, 7):
        host.rollout(state="settled", revision=str(number))
    HostRecords(host.root, "demo").write(record_of("rolling", "0123456789ab.ffffffffffff"))
    with pytest.raises(DriftguardError, match="revision previous"):
        host.rollout(True, revision="previous", desired=None, fenced=[RELEASE_ID])


def test_what_a_killed_run_was_stopping_is_recreated_though_it_still_runs(host: Host) -> None:
    def broken_off(*_: Any) -> None:
        raise DriftguardError("engine", "to remove it", "a kill", "run again")

    host.engine.remove = broken_off  # type: ignore[method-assign,assignment]
    with pytest.raises(DriftguardError, match="a kill"):
        host.rollout(state="absent")
    for _ in range(2):
        step = host.rollout(True).values["steps"][0]
        assert (step["action"], step["reason"][:23]) == ("recreate", "STOPPED: being stopped ")


def test_what_was_not_stopped_in_the_end_is_not_taken_for_stopping(host: Host) -> None:
    """Compose refuses the file before anything is stopped: going back must not recreate what is right."""
    with pytest.raises(FailedResult, match="nothing was touched"):
        host.rollout(services=["extractor"])
    assert [step["action"] for step in host.rollout(True).values["steps"]] == ["keep"]


@pytest.mark.parametrize("project", ["demo-workers", "elsewhere"])
def test_taking_the_fleet_off_is_predicted_and_spares_other_projects(host: Host, project: str) -> None:
    host.engine.containers["e" * 64] = inspected("e" * 64, "ocr", project=project)
    result = host.rollout(True, state="absent")
    names = [step["container"] for step in result.values["steps"] if step["action"] == "remove"]
    assert names == ["demo-workers-extractor-1", *(["demo-workers-ocr-1"] if project == "demo-workers" else [])]
    assert host.engine.stopped == []


def test_a_fleet_that_is_off_stays_off(host: Host) -> None:
    host.engine.containers.clear()
    assert not host.rollout(state="absent").changed
