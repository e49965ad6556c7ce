# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which containers are the fleet's, read from whatever an engine says of them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_containers import (
    ImageFacts,
    container_of,
    fleet_containers,
    image_facts,
    is_fleets,
    uptime,
)
from support.containers import CONTAINER_ID, IMAGE_ID, RELEASE_ID, SHA, FakeEngine, container, image, inspected

OLD = "sha256:" + "b" * 64
REPOSITORIES = ["demo-worker", "registry:5000/team/demo-worker-ocr", "docker.io/acme/demo-worker"]


def found(engine: Any, **options: Any) -> list[str]:
    return [one.name for one in fleet_containers(engine, "demo", REPOSITORIES, **options)]


def test_a_container_is_read_whole() -> None:
    read = container_of(inspected(), image_facts(image()))
    assert (read.id, read.name, read.service, read.number) == (CONTAINER_ID, "demo-workers-extractor-1", "extractor", 1)
    assert (read.status, read.health, read.started_at) == ("running", "healthy", "2026-01-02T03:04:05.678901234Z")
    assert (read.project, read.spec, read.one_off, read.half_made) == ("demo-workers", "spec1", False, False)
    assert (read.memory, read.stop_timeout, read.restart_policy) == (2**26, 30, "always")
    assert (read.mounts, read.command) == (("/opt/driftguard/guard", "/tmp"), ("python", "-m", "worker"))
    assert read.guard == "/opt/driftguard/demo/guard"
    assert read.environment["GIT_SHA"] == SHA
    assert read.healthcheck == ("CMD", "true")
    assert read.image == ImageFacts(IMAGE_ID, SHA, RELEASE_ID, SHA, "/work", ("python", "-m", "worker"))
    assert read.identity == (CONTAINER_ID, "running", "2026-01-02T03:04:05.678901234Z")


NULLS: dict[str, dict[str, Any]] = {
    "state": {"State": None}, "config": {"Config": None}, "host": {"HostConfig": None}, "mounts": {"Mounts": None},
    "health": {"State": {"Status": "running", "Health": None}}, "no name": {"Name": None}, "no image": {"Image": None},
    "lists": {
        "Config": {"Env": None, "Labels": None, "Entrypoint": None, "Cmd": None, "Healthcheck": None, "Image": None}
    },
    "test": {"Config": {"Healthcheck": {"Test": None}}},
    "policy": {"HostConfig": {"RestartPolicy": None, "Tmpfs": None}},
    "no destination": {"Mounts": [{"Type": "volume"}]}, "numbers": {"RestartCount": None, "State": {"ExitCode": None}},
}


@pytest.mark.parametrize("name", NULLS)
def test_nulls_and_missing_keys_are_none(name: str) -> None:
    read = container_of({**inspected(), **NULLS[name]}, None)
    missing = container_of(
        {key: part for key, part in {**inspected(), **NULLS[name]}.items() if part is not None}, None)
    assert read == missing
    assert "None" not in f"{read.status} {read.health} {read.name} {read.image_id} {read.mounts} {read.image_reference}"


def test_an_empty_inspection_is_a_container_that_does_not_run() -> None:
    read = container_of({"Id": "x"}, None)
    assert (read.status, read.health, read.restart_policy, read.number, read.stop_timeout) == (
        "unknown", "none", "no", 0, 10)


@pytest.mark.parametrize("facts", [
    {"Id": IMAGE_ID}, {"Id": IMAGE_ID, "Config": None},
    {"Id": IMAGE_ID, "Config": {"Labels": None, "Env": None, "Entrypoint": None, "Cmd": None, "WorkingDir": None}},
])
def test_an_unstamped_image_has_no_stamps(facts: dict[str, Any]) -> None:
    assert image_facts(facts) == ImageFacts(IMAGE_ID, "", "", "", "", ())


def test_no_image_no_facts() -> None:
    assert image_facts(None) is None


@pytest.mark.parametrize(("environment", "sha"), [
    ([], ""), (["GIT_SHA"], ""), (["GIT_SHA="], ""), (["GIT_SHA=a=b"], "a=b"), (["GIT_SHA=a", "GIT_SHA=b"], "b")])
def test_environment_lines(environment: list[str], sha: str) -> None:
    assert (image_facts(image(Env=environment)) or pytest.fail("no facts")).environment_sha == sha


@pytest.mark.parametrize(("label", "number"), [("3", 3), ("", 0), ("x", 0), ("٣", 0), ("-1", 0), ("9" * 5000, 0)])
def test_replica_numbers(label: str, number: int) -> None:
    assert container(labels={"com.docker.compose.container-number": label}).number == number


@pytest.mark.parametrize(("name", "half_made"), [
    ("0123456789ab_demo-workers-x-1", True), ("demo-workers-x-1", False), ("0123456789ab_", False),
    ("my_container", False),
    ("0123456789abc_x", False), ("0123456789aX_x", False), ("", False),
])
def test_half_made_containers_are_known_by_their_name(name: str, half_made: bool) -> None:
    assert container(name=name).half_made is half_made


OURS: dict[str, dict[str, Any]] = {
    "fleet label": {"Labels": {"io.driftguard.fleet": "demo"}},
    "compose project": {"Labels": {"com.docker.compose.project": "demo-workers"}},
    "compose project, a sibling's image": {
        "Labels": {"com.docker.compose.project": "demo-workers", "io.driftguard.fleet": "sibling"}},
    "our image": {"ImageID": IMAGE_ID}, "our repository": {"Image": "demo-worker"},
    "with a tag": {"Image": "demo-worker:latest"}, "with a digest": {"Image": f"demo-worker@{OLD}"},
    "tag and digest": {"Image": f"demo-worker:x@{OLD}"},
    "empty label": {"Labels": {"io.driftguard.fleet": ""}, "ImageID": IMAGE_ID},
}
NOT_OURS: dict[str, dict[str, Any]] = {
    "nothing": {}, "nulls": {"Labels": None, "Image": None, "ImageID": None},
    "sibling": {"Labels": {"io.driftguard.fleet": "demo2"}},
    "a sibling's container of our image": {"Labels": {"io.driftguard.fleet": "demo2"}, "ImageID": IMAGE_ID},
    "the application's project": {"Labels": {"com.docker.compose.project": "demo"}},
    "longer name": {"Image": "demo-worker2:latest"}, "other registry": {"Image": "registry:5000/demo-worker"},
    "an id as a name": {"Image": IMAGE_ID},
}


@pytest.mark.parametrize("name", OURS)
def test_what_is_the_fleets(name: str) -> None:
    assert is_fleets(OURS[name], "demo", {IMAGE_ID}, {"demo-worker"})


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not(name: str) -> None:
    assert not is_fleets(NOT_OURS[name], "demo", {IMAGE_ID}, {"demo-worker"})


def test_images_of_the_fleets_repositories_are_the_fleets() -> None:
    by_hand = [
        {"Id": key * 64, "Name": f"/{key}", "Image": "sha256:" + key * 64, "Config": {"Image": "whatever"}}
        for key in "12345"]
    images = [
        {**image("sha256:" + "1" * 64), "RepoTags": ["demo-worker:old"]},
        {**image("sha256:" + "2" * 64), "RepoTags": None,
         "RepoDigests": ["registry:5000/team/demo-worker-ocr@sha256:0"]},
        {**image("sha256:" + "3" * 64), "RepoTags": ["acme/demo-worker:old"]},
        {**image("sha256:" + "4" * 64), "RepoTags": ["<none>:<none>"]},
        {**image("sha256:" + "5" * 64), "RepoTags": ["registry:5000/demo-worker:old"]},
    ]
    assert found(FakeEngine(by_hand, images)) == ["1", "2", "3"]


# Its tag was moved or removed since: the engine lists it by its image's id, and the image has no name any more.
MOVED = {"Id": "1" * 64, "Name": "/moved", "Image": OLD, "Config": {"Image": "demo-worker:latest"}}


@pytest.mark.parametrize("config", [
    {"Image": "demo-worker:latest"}, {"Image": "acme/demo-worker"}, {"Image": f"demo-worker@{OLD}"},
    {"Image": "demo-worker", "Labels": {"com.docker.compose.project": "other", "io.driftguard.fleet": ""}},
])
@pytest.mark.parametrize("shown", [OLD, "b" * 64, "b" * 12])
def test_a_container_whose_tag_was_moved_is_the_fleets(config: dict[str, Any], shown: str) -> None:
    engine = FakeEngine([{**MOVED, "Config": config}], [image(OLD)])
    engine.listed_as["1" * 64] = shown
    assert found(engine) == ["moved"]


@pytest.mark.parametrize(("config", "shown"), [
    ({"Image": "other-worker:latest"}, OLD), ({"Image": OLD}, OLD), ({"Image": None}, OLD), (None, OLD),
    ({"Image": "demo-worker", "Labels": {"io.driftguard.fleet": "sibling"}}, OLD),
    ({"Image": "demo-worker"}, "deadbeef"), ({"Image": "demo-worker"}, "other-worker:latest"),
])
def test_a_container_that_is_listed_by_an_id_may_be_anybodys(config: Any, shown: str) -> None:
    engine = FakeEngine([{**MOVED, "Config": config}], [image(OLD)])
    engine.listed_as["1" * 64] = shown
    assert found(engine) == []


def test_a_container_whose_tag_was_moved_may_go_before_it_is_asked() -> None:
    engine = FakeEngine([MOVED], [image(OLD)])
    engine.listed_as["1" * 64] = OLD
    engine.gone_after_listing.add("1" * 64)
    assert found(engine) == []


def test_containers_come_by_service_and_number() -> None:
    engine: Any = FakeEngine([
        inspected("1" * 64, "ocr", 1), inspected("2" * 64, "extractor", 10), inspected("3" * 64, "extractor", 2),
        inspected("4" * 64, "x", 1, project="other", labels={"io.driftguard.fleet": "other"})], [image()])
    assert found(engine) == ["demo-workers-extractor-2", "demo-workers-extractor-10", "demo-workers-ocr-1"]


def test_only_running_containers_are_asked_what_changed_and_each_image_once() -> None:
    engine: Any = FakeEngine(
        [inspected("1" * 64), inspected("2" * 64, number=2, status="exited"), inspected("3" * 64, number=3)], [image()],
        {"1" * 64: ["/work/x"]})
    read = fleet_containers(engine, "demo", REPOSITORIES)
    assert [one.changes for one in read] == [("/work/x",), (), ()]
    assert engine.asked == [("image", IMAGE_ID), ("changes", "1" * 64), ("changes", "3" * 64)]
    engine.asked.clear()
    assert found(engine, with_changes=False)
    assert engine.asked == [("image", IMAGE_ID)]


def test_what_goes_between_two_questions_is_gone() -> None:
    engine: Any = FakeEngine([inspected("1" * 64), inspected("2" * 64, number=2)])
    engine.gone_after_listing.add("1" * 64)
    read = fleet_containers(engine, "demo", REPOSITORIES)
    assert [(one.number, one.image) for one in read] == [(2, None)]


@pytest.mark.parametrize(("text", "seconds"), [
    ("2026-01-02T03:04:04.250000000Z", 60.75), ("2026-01-02T03:04:04.25Z", 60.75), ("2026-01-02T03:04:05Z", 60),
    ("2026-01-02T03:06:05Z", 0), ("", 0), ("soon", 0), ("0001-01-01T00:00:00Z", 63902919905),
    ("2026-13-41T00:00:00Z", 0),
])
def test_uptime(text: str, seconds: float) -> None:
    now = datetime(2026, 1, 2, 3, 5, 5, tzinfo=timezone.utc)
    assert uptime(container(started_at=text), now) == seconds
