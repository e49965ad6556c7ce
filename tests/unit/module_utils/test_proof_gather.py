# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at a host: one consistent snapshot, waiting for what may pass and for nothing else."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any, Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_spec import read_services
from ansible_collections.driftguard.workers.plugins.module_utils.proof_gather import (
    Place,
    failing,
    prove_host,
    repositories_of,
    wanted_services,
)
from ansible_collections.driftguard.workers.plugins.module_utils.registrations import (
    FIELDS,
    Snapshot,
    parse_registration,
)
from support.containers import CONTAINER_ID, IMAGE_ID, RELEASE_ID, SHA, FakeEngine, image, inspected, wanted
from support.release_data import DIGEST, release_of

OTHER = "sha256:" + "b" * 64
SERVICES = read_services("demo", {"extractor": {"replicas": 2}, "ocr": {"variant": "ocr"}}, {"memory": "64M"})


class FakeRedis:
    """Registrations as a test wants them; what is to happen at each look happens there."""

    def __init__(self, *looks: Callable[[], Snapshot]) -> None:
        self._looks = list(looks)
        self.count = 0

    def registrations(self, _fleet: str) -> Snapshot:
        """The next look, the last one for ever."""
        self.count += 1
        return self._looks[min(self.count, len(self._looks)) - 1]()


def snapshot(*containers: str, malformed: tuple[str, ...] = (), **changes: Any) -> Snapshot:
    values = {
        "gitSha": SHA, "buildDate": "2026-01-02T03:04:05Z", "startedAt": "2026-01-02T03:04:05Z", "pid": "1",
        "host": "host1",
        "service": "extractor", "releaseId": RELEASE_ID, "state": "running", "heartbeatAt": "2026-01-02T03:04:05Z",
        **changes}
    registered = [
        parse_registration("extractor", one[:12], [{**values, "containerId": one}[name] for name in FIELDS], 9000)
        for one in containers]
    return Snapshot(0.0, registered, [], list(malformed))


def place(engine: FakeEngine, redis: FakeRedis, hosts: Any = ("host1",)) -> Place:
    real_engine: Any = engine
    real_redis: Any = redis
    return Place(real_engine, real_redis, "demo", "host1", hosts, frozenset({"demo-worker"}))


def good_engine() -> FakeEngine:
    return FakeEngine([inspected()], [image()])


def test_a_right_host_is_proved_at_the_first_look() -> None:
    redis = FakeRedis(lambda: snapshot(CONTAINER_ID))
    rows = prove_host(place(good_engine(), redis), {"extractor": wanted()}, 30)
    assert [row.verdict for row in rows] == ["OK"]
    assert (redis.count, failing(rows)) == (1, [])


def test_a_late_registration_is_waited_for() -> None:
    redis = FakeRedis(snapshot, lambda: snapshot(CONTAINER_ID, state="starting"), lambda: snapshot(CONTAINER_ID))
    rows = prove_host(place(good_engine(), redis), {"extractor": wanted()}, 30)
    assert ([row.verdict for row in rows], redis.count) == (["OK"], 3)


def _restarted(started_at: datetime) -> FakeEngine:
    state = {**inspected()["State"], "StartedAt": started_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    return FakeEngine([{**inspected(), "RestartCount": 3, "State": state}], [image()])


def test_a_worker_that_was_restarted_is_waited_for() -> None:
    """By this host's clock, that of its engine: 29 seconds ago isn't long enough, a second later it is."""
    engine = _restarted(datetime.fromtimestamp(time.time() - 29, timezone.utc))
    redis = FakeRedis(lambda: snapshot(CONTAINER_ID))
    rows = prove_host(place(engine, redis), {"extractor": wanted()}, 30)
    assert [row.verdict for row in rows] == ["OK"]
    assert redis.count > 1


def test_a_worker_that_crashes_in_a_loop_is_never_proved() -> None:
    engine = _restarted(datetime.now(timezone.utc))
    rows = prove_host(place(engine, FakeRedis(lambda: snapshot(CONTAINER_ID))), {"extractor": wanted()}, 0.6)
    assert [(row.verdict, row.state) for row in rows] == [("CRASHING", "restarted")]


def test_a_slow_look_makes_no_container_older() -> None:
    engine = _restarted(datetime.fromtimestamp(time.time() - 29.5, timezone.utc))

    def slowly() -> Snapshot:
        time.sleep(1)
        return snapshot(CONTAINER_ID)

    rows = prove_host(place(engine, FakeRedis(slowly)), {"extractor": wanted()}, 0)
    assert [row.verdict for row in rows] == ["CRASHING"]


def test_waiting_has_an_end() -> None:
    started = time.monotonic()
    rows = prove_host(place(good_engine(), FakeRedis(snapshot)), {"extractor": wanted()}, 0.1)
    assert [row.verdict for row in rows] == ["UNREGISTERED"]
    assert time.monotonic() - started < 5


def test_what_cannot_pass_is_said_at_once() -> None:
    redis = FakeRedis(lambda: snapshot(CONTAINER_ID, gitSha="f" * 40))
    rows = prove_host(place(good_engine(), redis), {"extractor": wanted()}, 30)
    assert ([row.verdict for row in rows], redis.count) == (["STALE"], 1)


def _restart(engine: FakeEngine) -> Snapshot:
    engine.containers[CONTAINER_ID] = {
        **inspected(), "State": {**inspected()["State"], "StartedAt": "2026-01-02T03:05:00Z"}}
    return snapshot(CONTAINER_ID)


@pytest.mark.parametrize("disturb", [
    _restart, lambda engine: engine.containers.clear() or snapshot(CONTAINER_ID),
    lambda engine: engine.containers.update({"e" * 64: inspected("e" * 64, number=2)}) or snapshot(CONTAINER_ID),
])
def test_containers_that_come_or_go_between_the_looks_prove_nothing(disturb: Callable[[FakeEngine], Snapshot]) -> None:
    engine = good_engine()
    rows = prove_host(place(engine, FakeRedis(lambda: disturb(engine))), {"extractor": wanted()}, 0)
    assert [(row.verdict, row.found) for row in rows] == [
        ("UNKNOWN", "containers came or went while they were being looked at")]


def test_after_a_disturbance_it_looks_again_even_at_what_looked_wrong() -> None:
    """A container of somebody's that is just going away must not fail a deploy."""
    engine = FakeEngine([inspected(), inspected("e" * 64, "gone")], [image()])

    def goes_away() -> Snapshot:
        engine.containers.pop("e" * 64)
        return snapshot(CONTAINER_ID)

    redis = FakeRedis(goes_away, lambda: snapshot(CONTAINER_ID))
    assert [row.verdict for row in prove_host(place(engine, redis), {"extractor": wanted()}, 30)] == ["OK"]


@pytest.mark.parametrize(("hosts", "verdicts"), [(("host1",), ["OK", "EXTRA"]), (None, ["OK"])])
def test_one_host_looks_for_strangers(hosts: Any, verdicts: list[str]) -> None:
    redis = FakeRedis(lambda: snapshot(CONTAINER_ID, malformed=("'x' isn't an instance",)))
    rows = prove_host(place(good_engine(), redis, hosts), {"extractor": wanted()}, 0)
    assert [row.verdict for row in rows] == verdicts


def test_repositories_of_the_fleet() -> None:
    assert repositories_of("demo", SERVICES, None) == {"demo-worker", "demo-worker-ocr"}
    assert repositories_of("demo", {}, release_of()) == {"demo-worker", "registry:5000/demo-worker-ocr"}


IMAGES = [image(), {**image(OTHER), "RepoDigests": [f"registry:5000/demo-worker-ocr@{DIGEST}"]}]


def _wanted(sha: str = SHA, release: Any = None, images: Any = None, **options: Any) -> dict[str, Any]:
    engine: Any = FakeEngine([], IMAGES if images is None else images)
    return {
        name: (one.image_id, one.release_id, one.retagged, one.replicas, one.sha)
        for name, one in wanted_services(engine, SERVICES, release, sha, **options).items()}


def test_images_are_the_ones_that_this_engine_calls_by_the_releases_names() -> None:
    assert _wanted(release=release_of()) == {
        "extractor": (IMAGE_ID, RELEASE_ID, "", 2, SHA), "ocr": (OTHER, RELEASE_ID, "", 1, SHA)}


@pytest.mark.parametrize(("sha", "release"), [("f" * 40, release_of()), (SHA, None), ("", None)])
def test_without_a_release_of_that_commit_no_image_is_known(sha: str, release: Any) -> None:
    assert {(one[0], one[1]) for one in _wanted(sha, release).values()} == {(None, "")}


def test_an_image_that_is_gone_is_not_known() -> None:
    assert _wanted(release=release_of(), images=[image()])["ocr"][0] is None


@pytest.mark.parametrize(("tagged", "said"), [
    ([], ""), ([f"demo-worker:{SHA}"], f"tag demo-worker:{SHA} was moved to another image (bbbbbbbbbbbb)"),
    (["demo-worker:0123456"], "tag demo-worker:0123456 was moved to another image (bbbbbbbbbbbb)"),
])
def test_a_moved_tag_is_seen(tagged: list[str], said: str) -> None:
    images = [image(), {**IMAGES[1], **image(OTHER, sha="e" * 40), "RepoTags": tagged}]
    assert _wanted(release=release_of(), images=images)["extractor"][2] == said
    # The same commit built anew took them over.
    images = [image(), {**IMAGES[1], "RepoTags": tagged}]
    assert _wanted(release=release_of(), images=images)["extractor"][2] == ""
    assert _wanted(release=release_of(), images=images, with_tags=False)["extractor"][2] == ""
