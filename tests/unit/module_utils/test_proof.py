# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proved exactly when what is demanded, what runs and what is registered are the same, each of it right."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Optional, Sequence

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import verdicts
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_containers import Container
from ansible_collections.driftguard.workers.plugins.module_utils.proof import Row, Scene, is_proved, may_pass, prove
from ansible_collections.driftguard.workers.plugins.module_utils.registrations import Registration
from hypothesis import given
from hypothesis import strategies as st
from support.containers import CONTAINER_ID, IMAGE_ID, PROJECT, SHA, container, registration, wanted

HOSTS = ["host1", "host2"]
OLD_SHA = "f" * 40


def scene(containers: Sequence[Container], registrations: Sequence[Registration], **changes: Any) -> Scene:
    """Of host1, where one extractor should run."""
    return Scene(**{
        "host": "host1", "project": PROJECT, "wanted": {"extractor": wanted()}, "containers": containers,
        "registrations": registrations, "hosts": HOSTS, **changes})


def verdicts_of(rows: Sequence[Row]) -> list[str]:
    return [row.verdict for row in rows]


def test_one_right_instance_is_proved_and_shown_whole() -> None:
    rows = prove(scene([container()], [registration()]))
    assert [row.to_dict() for row in rows] == [{
        "service": "extractor", "instance": "demo-workers-extractor-1", "host": "host1", "sha": SHA, "image": IMAGE_ID,
        "container_id": CONTAINER_ID, "started": "2026-01-02T03:04:05.678901234Z", "state": "running", "verdict": "OK",
        "found": "", "remedy": ""}]
    assert is_proved(rows)


def test_nothing_is_never_a_proof() -> None:
    assert not is_proved([])
    assert not is_proved(prove(scene([], [], wanted={})))
    assert verdicts_of(prove(scene([], []))) == ["MISSING"]


REGISTRATIONS: dict[str, tuple[Optional[dict[str, Any]], list[str]]] = {
    "none": (None, ["UNREGISTERED"]), "old code": ({"gitSha": OLD_SHA}, ["STALE"]),
    "no SHA": ({"gitSha": None}, ["STALE"]),
    "other inputs": ({"releaseId": "0123456789ab.000000000000"}, ["STALE"]),
    "no release": ({"releaseId": "?"}, ["STALE"]),
    "unknown": ({"gitSha": "unknown"}, ["STALE"]), "starting": ({"state": "starting"}, ["STARTING"]),
    "draining": ({"state": "draining"}, ["DRAINING"]), "fenced": ({"state": "fenced"}, ["FENCED"]),
    "no state": ({"state": "fine"}, ["MISMATCH"]), "another host": ({"host": "host2"}, ["MISMATCH"]),
    "a strange host": ({"host": "host3"}, ["MISMATCH", "EXTRA"]), "no host": ({"host": None}, ["MISMATCH"]),
    "another service": ({"service": "ocr"}, ["MISMATCH"]), "never expires": ({"ttl_ms": -1}, ["MISMATCH"]),
    "of another container": ({"container_id": "e" * 64}, ["UNREGISTERED", "DEAD"]),
    "of no container": ({"containerId": "", "instance": "build-box-1"}, ["UNREGISTERED", "DEAD"]),
}


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_what_a_worker_says_of_itself(name: str) -> None:
    changes, expected = REGISTRATIONS[name]
    rows = prove(scene([container()], [registration(**changes)] if changes is not None else []))
    assert verdicts_of(rows) == expected
    assert all(row.found and row.remedy for row in rows)


@pytest.mark.parametrize(("replicas", "present", "expected"), [
    (2, 1, ["OK", "MISSING"]), (3, 0, ["MISSING"] * 3), (1, 2, ["OK", "EXTRA"]), (1, 3, ["OK", "EXTRA", "EXTRA"]),
])
def test_replicas_are_counted(replicas: int, present: int, expected: list[str]) -> None:
    ids = [f"{number:012x}" + "c" * 52 for number in range(present)]
    rows = prove(scene(
        [container(one, number=number) for number, one in enumerate(ids, 1)], [registration(one) for one in ids],
        wanted={"extractor": wanted(replicas=replicas)}))
    assert verdicts_of(rows) == expected


def test_too_many_are_no_proof_even_if_one_of_them_is_wrong() -> None:
    ids = ["1" * 64, "2" * 64]
    containers = [container(ids[0], image_id="sha256:" + "b" * 64), container(ids[1], number=2)]
    assert verdicts_of(prove(scene(containers, [registration(one) for one in ids]))) == ["STALE", "EXTRA"]


@pytest.mark.parametrize("changes", [
    {"project": "elsewhere"}, {"service": "gone"}, {"labels": {"com.docker.compose.oneoff": "True"}},
    {"project": "", "service": ""}, {"project": "elsewhere", "status": "exited"},
])
def test_every_other_container_of_the_fleet_is_an_extra(changes: dict[str, Any]) -> None:
    other = container("e" * 64, name="other", **changes)
    rows = prove(scene([container(), other], [registration(), registration("e" * 64, service="gone")]))
    assert [row.verdict for row in rows if row.instance == "other"] == ["EXTRA"]
    assert not may_pass(rows)


def test_a_container_is_judged_before_its_registration() -> None:
    assert verdicts_of(prove(scene([container(status="exited")], [registration()]))) == ["STOPPED", "DEAD"]
    assert verdicts_of(prove(scene([container(environment={"GIT_SHA": OLD_SHA})], [registration()]))) == ["OVERRIDDEN"]


STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def after(seconds: float, registered: Sequence[Registration], **changes: Any) -> Row:
    """What is said of an instance that the engine started some seconds ago."""
    one = container(started_at="2026-01-02T03:04:05Z", **changes)
    return prove(scene([one], registered, now=STARTED + timedelta(seconds=seconds)))[0]


@pytest.mark.parametrize(("restarts", "seconds", "found"), [
    (1, 0, "restarted once, last time 0 s ago"), (7, 11.6, "restarted 7 times, last time 12 s ago"),
    (2, 29.9, "restarted 2 times, last time 30 s ago"), (2, -5, "restarted 2 times, last time 0 s ago"),
])
@pytest.mark.parametrize("said", [[registration()], [registration(state="starting")], []])
def test_a_worker_that_was_restarted_a_moment_ago_may_crash_again(
    restarts: int, seconds: float, found: str, said: list[Registration],
) -> None:
    row = after(seconds, said, restart_count=restarts)
    assert (row.verdict, row.found) == ("CRASHING", found)
    assert "docker logs" in row.remedy
    assert may_pass([row]), "it may stay up from now on"


@pytest.mark.parametrize(("restarts", "seconds"), [(0, 0), (0, 29), (1, 30), (99, 3600)])
def test_a_worker_that_stayed_up_is_settled(restarts: int, seconds: float) -> None:
    assert after(seconds, [registration()], restart_count=restarts).verdict == "OK"


@pytest.mark.parametrize(("changes", "said", "verdict"), [
    ({"image_id": "sha256:" + "b" * 64}, {}, "STALE"), ({"status": "exited"}, {}, "STOPPED"),
    ({}, {"gitSha": OLD_SHA}, "STALE"), ({}, {"host": "host2"}, "MISMATCH"),
])
def test_what_stays_wrong_is_named_before_a_restart(
    changes: dict[str, Any], said: dict[str, Any], verdict: str,
) -> None:
    row = after(1, [registration(**said)], restart_count=3, **changes)
    assert row.verdict == verdict
    assert not may_pass([row])


def test_a_container_that_the_engine_is_restarting_is_not_waited_for() -> None:
    row = after(1, [registration()], restart_count=3, status="restarting")
    assert (row.verdict, may_pass([row])) == ("CRASHING", False)


def test_a_second_registration_of_one_container_is_an_extra() -> None:
    rows = prove(scene([container()], [registration(instance="other-box"), registration()]))
    assert verdicts_of(rows) == ["OK", "EXTRA"], "the well-formed one counts, the other is named"


STRANGERS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "this host, no container": ({}, ["DEAD"], ["DEAD"]), "this host, for ever": ({"ttl_ms": -1}, ["EXTRA"], ["EXTRA"]),
    "another host of the fleet": ({"host": "host2"}, [], []), "a strange host": ({"host": "host3"}, ["EXTRA"], []),
    "a strange host, for ever": ({"host": "host3", "ttl_ms": -1}, ["EXTRA"], []),
    "no host": ({"host": None}, ["EXTRA"], []),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_registrations_without_a_container(name: str) -> None:
    changes, for_leader, for_others = STRANGERS[name]
    registered = [registration(), registration("e" * 64, **changes)]
    assert verdicts_of(prove(scene([container()], registered)))[1:] == for_leader
    assert verdicts_of(prove(scene([container()], registered, hosts=None)))[1:] == for_others


def test_what_is_no_registration_is_an_extra() -> None:
    rows = prove(scene([container()], [registration()], malformed=["'x' isn't an instance"]))
    assert [(row.verdict, row.found) for row in rows] == [("OK", ""), ("EXTRA", "'x' isn't an instance")]


@pytest.mark.parametrize(("changes", "passes"), [
    ({}, True), ({"host": "host3"}, True), ({"host": "host3", "ttl_ms": -1}, False), ({"ttl_ms": -1}, False)])
def test_what_expires_is_waited_for(changes: dict[str, Any], passes: bool) -> None:
    assert may_pass(prove(scene([container()], [registration(), registration("e" * 64, **changes)]))) is passes


@pytest.mark.parametrize(("verdict", "passes"), [
    (verdicts.OK, True), (verdicts.STARTING, True), (verdicts.DRAINING, True), (verdicts.UNREGISTERED, True),
    (verdicts.UNKNOWN, True), (verdicts.DEAD, True), (verdicts.STALE, False), (verdicts.MISSING, False),
    (verdicts.FENCED, True),
    (verdicts.STOPPED, False), (verdicts.EXTRA, False), (verdicts.MISMATCH, False), (verdicts.RECORD, False),
])
def test_what_may_pass(verdict: str, passes: bool) -> None:
    assert may_pass([Row("a", "a-1", "host1"), Row("a", "a-2", "host1", verdict=verdict)]) is passes
    assert is_proved([Row("a", "a-1", "host1"), Row("a", "a-2", "host1", verdict=verdict)]) is (verdict == verdicts.OK)


# A scene is put together from pieces; a piece is fine when it has no name.
PIECES: dict[str, Any] = {
    "": lambda key, service: (container(key, service=service), [registration(key, service=service)]),
    "old image": lambda key, service: (
        container(key, service=service, image_id="sha256:" + "b" * 64), [registration(key, service=service)]),
    "mount": lambda key, service: (
        container(key, service=service, mounts=("/opt/driftguard/guard", "/work")),
        [registration(key, service=service)]),
    "silent": lambda key, service: (container(key, service=service), []),
    "liar": lambda key,
    service: (container(key, service=service), [registration(key, service=service, gitSha=OLD_SHA)]),
    "twice": lambda key, service: (
        container(key, service=service),
        [registration(key, service=service), registration(key, instance=f"box-{key[:4]}")]),
    "ghost": lambda key, service: (None, [registration(key, service=service)]),
    "stranger": lambda key, service: (None, [registration(key, service=service, host="host3")]),
    "elsewhere": lambda key, service: (
        container(key, service=service, project="other"), [registration(key, service=service)]),
    "not placed": lambda key, _service: (container(key, service="gone"), [registration(key, service="gone")]),
}
PLACED = st.lists(st.tuples(st.sampled_from(["", "", "", *PIECES]), st.sampled_from(["a", "b"])), max_size=6)


@given(PLACED, st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 2), min_size=1), st.booleans())
def test_proved_exactly_when_the_three_sets_are_equal_and_each_is_right(
    pieces: list[tuple[str, str]], services: dict[str, int], neighbour: bool,
) -> None:
    made = [PIECES[flaw](f"{place:012x}" + "c" * 52, service) for place, (flaw, service) in enumerate(pieces)]
    containers = [replace(one, name=one.id[:12]) for one, _said in made if one is not None]
    registered = [said for _one, all_said in made for said in all_said]
    registered += [registration("d" * 64, host="host2")] if neighbour else []
    equal = all(not flaw for flaw, _service in pieces) and {
        service: sum(1 for _flaw, named in pieces if named == service) for service in {
            named for _flaw, named in pieces}} == services
    rows = prove(scene(containers, registered, wanted={name: wanted(name, count) for name, count in services.items()}))
    assert is_proved(rows) is equal
    assert {one.id for one in containers} == {row.container_id for row in rows if row.container_id}
    if equal:
        assert len(rows) == sum(services.values())
