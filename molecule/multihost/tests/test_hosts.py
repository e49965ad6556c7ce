# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every host runs its own part of the fleet, from one image by digest, and says so in Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest

ROOT = "/opt/driftguard/demo-lab"
PLACED = {
    "host1": ["classifier", "extractor", "extractor"],
    "host2": ["composer", "extractor", "extractor"],
    "host3": ["classifier", "composer"],
}
# Which engine is which: a Debian 12, and one that keeps images in containerd's store.
ENGINES = {"host1": "26.1.", "host2": "26.1.", "host3": "20.10."}
Containers = list[dict[str, Any]]


def service(container: dict[str, Any]) -> str:
    """Service of a container."""
    return str(container["Config"]["Labels"]["io.driftguard.service"])


def test_the_host_is_the_kind_that_it_should_be(host: Any, name: str) -> None:
    assert host.check_output("docker version --format '{{.Server.Version}}'").startswith(ENGINES[name])
    store = host.check_output("docker info --format '{{.DriverStatus}}'")
    assert ("io.containerd.snapshotter" in store) == (name == "host2")


def test_exactly_its_own_services_are_there_and_run(containers: Containers, name: str) -> None:
    assert sorted(service(container) for container in containers) == PLACED[name]
    assert {container["State"]["Status"] for container in containers} == {"running"}


def test_each_runs_the_release_as_its_engine_has_it(containers: Containers, image: dict[str, Any], head: str) -> None:
    assert {container["Image"] for container in containers} == {image["Id"]}
    assert image["Config"]["Labels"]["org.opencontainers.image.revision"] == head
    assert f"GIT_SHA={head}" in image["Config"]["Env"]


def test_the_image_was_pulled_by_digest(image: dict[str, Any]) -> None:
    repository, _, digest = image["Reference"].partition("@")
    assert repository.endswith("/demo-lab-worker")
    assert f"{repository}@{digest}" in image["RepoDigests"]


def test_no_password_of_the_registry_is_left_on_the_host(host: Any) -> None:
    for home in ("/root", "/home/deploy"):
        assert not host.file(f"{home}/.docker/config.json").exists


def test_the_record_is_settled_on_the_commit(host: Any, head: str) -> None:
    record = json.loads(host.file(f"{ROOT}/guard/guard.json").content_string)
    assert (record["phase"], record["target"]["sha"], record["allowed"]) == ("settled", head, [record["target"]])


def test_its_workers_are_registered_and_nobody_else_of_it(client: Any, containers: Containers, name: str) -> None:
    found = [client.hgetall(key) for key in client.scan_iter("demo-lab:worker:*:*:version")]
    mine = [fields for fields in found if fields["host"] == name]
    assert sorted(fields["containerId"] for fields in mine) == sorted(container["Id"] for container in containers)
    assert {fields["state"] for fields in mine} == {"running"}


def test_the_fleets_record_is_settled_and_the_lease_given_back(client: Any, head: str) -> None:
    record = json.loads(str(client.get("demo-lab:release")))
    assert (record["phase"], record["target"]["sha"]) == ("settled", head)
    assert client.get("demo-lab:lock:deploy") is None


@pytest.mark.parametrize("path", ["compose.yml", "release.json"])
def test_the_revision_is_for_root_alone(host: Any, path: str) -> None:
    found = host.file(f"{ROOT}/current/{path}")
    assert (found.mode, found.uid) == (0o600, 0)
