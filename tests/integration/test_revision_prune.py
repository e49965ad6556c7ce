# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes from a host and what stays, with a real engine's images and containers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Iterator
from uuid import uuid4

import docker
import docker.errors
import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.record import ReleaseRef, rolling, settled
from ansible_collections.driftguard.workers.plugins.module_utils.revisions import Revisions, release_json
from support.image_app import recorded_engine
from support.modules import ModuleRun, run_module


class Host:
    """A host's directory and this engine's images, without a fleet that runs."""

    def __init__(self, root: Path) -> None:
        self.fleet = f"t{uuid4().hex[:8]}"
        self.root = root
        self.here = root / self.fleet
        self.engine = docker.from_env()
        self.revisions = Revisions(self.here)
        self.images: dict[int, str] = {}
        self.refs: dict[int, ReleaseRef] = {}

    def build(self, number: int, fleet: str = "", created: str = "", parent: str = "scratch") -> str:
        """An image as of a release of that number; its id."""
        sha = f"{number:040x}"
        labels = {
            "io.driftguard.fleet": fleet or self.fleet, "io.driftguard.variant": "base",
            "io.driftguard.release": f"{sha[:12]}.{number:012x}", "org.opencontainers.image.revision": sha,
            "org.opencontainers.image.created": created or f"2026-01-{number:02}T00:00:00Z",
            "io.driftguard.test": "prune"}
        # Without the cache: looking for a step there fails when any test's image is removed meanwhile.
        image, _log = self.engine.images.build(
            fileobj=io.BytesIO(f"FROM {parent}\nCMD [\"x\"]\n".encode()), labels=labels, rm=True,
            nocache=True)
        return str(image.id)

    def revision(self, number: int, proved: bool = True, release: int = 0) -> None:
        """A revision with its image and a secret of its own; proved ones become the current one."""
        release = release or number
        if release not in self.images:
            self.images[release] = self.build(release)
            self.engine.images.get(self.images[release]).tag(f"{self.fleet}-worker", f"{release:040x}")
        sha = f"{release:040x}"
        self.refs[number] = ReleaseRef(f"{sha[:12]}.{release:012x}", sha)
        image = {
            "variant": "base", "image": self.images[release], "id": self.images[release], "digest": None,
            "repository": f"{self.fleet}-worker", "tags": [], "size": 1, "entrypoint": [], "cmd": ["x"],
            "working_dir": "/", "uid": 1, "gid": 1, "guard": "sh", "guard_program": "/bin/sh", "volumes": [],
            "healthcheck": False}
        data = {
            "fleet": self.fleet, "release_id": self.refs[number].release_id, "sha": sha,
            "created": f"2026-01-{release:02}T00:00:00Z", "variants": {"base": image}}
        services = {"alpha": {
            "variant": "base", "replicas": 1, "image": self.images[release], "spec": f"spec-{number}", "grace": 1,
            "memory": 1}}
        secret = self.here / "secrets" / "1" / f"token.{number:016x}"
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("content")
        self.revisions.write(
            number, f"secrets:\n  file: {self.here}/secrets/1/{secret.name}\n", release_json(data, services))
        if proved:
            self.revisions.settle(self.revisions.load(number), number)
            self.settle(number)

    def settle(self, number: int) -> None:
        """This host's record allows a revision's release alone."""
        HostRecords(self.root, self.fleet).write(settled(None, self.fleet, self.refs[number], number))

    def prune(self, check: bool = False, **options: Any) -> ModuleRun:
        return run_module("worker_revision_prune", check, **{
            "fleet": self.fleet, "root": str(self.root), "host": "here", "keep": 2, "generation": 100, **options})

    def secrets(self) -> set[int]:
        return {int(path.name.partition(".")[2], 16) for path in (self.here / "secrets" / "1").iterdir()}

    def there(self) -> set[int]:
        """Releases whose image the engine has."""
        found = set()
        for number, image in self.images.items():
            try:
                self.engine.images.get(image)
                found.add(number)
            except docker.errors.ImageNotFound:
                continue
        return found

    def container(self, number: int, **labels: str) -> Any:
        """One that never runs, made from a revision's image."""
        return self.engine.containers.create(self.images[number], labels={"io.driftguard.test": "prune", **labels})

    def close(self) -> None:
        for container in self.engine.containers.list(all=True, ignore_removed=True):
            if container.attrs["Image"] in self.images.values():
                container.remove(force=True)
        for image in self.engine.images.list(filters={"label": "io.driftguard.test=prune"}):
            if str(image.id) in self.images.values() or any(self.fleet in tag for tag in image.tags):
                self.engine.images.remove(str(image.id), force=True)
        self.engine.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def test_check_prune_and_nothing_more_to_prune(host: Host, tmp_path: Path) -> None:
    for number in range(1, 7):
        host.revision(number, proved=number not in (3, 5))
    with recorded_engine(tmp_path) as (socket, requests), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", socket)
        predicted = host.prune(check=True).must_pass()
    assert requests
    assert {request.split()[0] for request in requests} <= {"GET", "HEAD"}
    assert host.revisions.numbers() == [1, 2, 3, 4, 5, 6]
    assert host.there() == host.secrets() == {1, 2, 3, 4, 5, 6}
    done = host.prune().must_pass()
    for key in ("revisions", "kept", "secrets", "images", "diff", "table"):
        assert done[key] == predicted[key], key
    assert [row["revision"] for row in done["revisions"]] == [3, 5, 1, 2]
    assert {row["reason"] for row in done["revisions"]} == {"never proved", "older than the last 2 proved ones"}
    assert all(row["size"] > 0 for row in done["revisions"])
    assert host.revisions.numbers() == [4, 6]
    assert host.there() == host.secrets() == {4, 6}
    assert f"image {host.fleet}-worker:{1:040x}" in done["diff"]["before"]
    for check in (True, False):
        idle = host.prune(check=check).must_pass()
        assert (idle.changed, idle["revisions"], idle["secrets"], idle["images"]) == (False, [], [], [])


def test_what_is_needed_stays(host: Host) -> None:
    for number in range(1, 8):
        host.revision(number)
    used = host.container(1, **{"io.driftguard.fleet": host.fleet, "io.driftguard.spec": "spec-1"})
    stray = host.container(2)
    # Back from 7 to 6 and to 5: those before it are what a rollback goes to.
    for number in (6, 5):
        host.revisions.settle(host.revisions.load(number), 20 - number)
    host.settle(5)
    done = host.prune(keep=1, published=["7", "x", "99"]).must_pass()
    assert {row["revision"]: row["reason"] for row in done["kept"]} == {
        1: f"container {used.name} was made from it", 4: "a rollback goes to it", 5: "the current one",
        7: "one of the fleet's last publications"}
    # A stranger's container keeps its image, and a newer release than the current one its own.
    assert host.there() == {1, 2, 4, 5, 6, 7}
    stray.remove(force=True)
    host.prune(keep=1, published=["7"]).must_pass()
    assert host.there() == {1, 4, 5, 6, 7}


def test_a_fenced_release_does_not_stand_in_for_what_a_rollback_goes_to(host: Host) -> None:
    for number in range(1, 5):
        host.revision(number)
    host.prune(keep=1, fenced=[host.refs[3].release_id]).must_pass()
    assert host.revisions.numbers() == [2, 3, 4]


def test_a_rollout_that_was_cut_off_keeps_what_it_moved(host: Host) -> None:
    for number in range(1, 5):
        host.revision(number)
    host.revision(5, proved=False, release=1)
    records = HostRecords(host.root, host.fleet)
    records.write(rolling(records.read().record, host.fleet, host.refs[2], 7))
    host.prune(keep=1).must_pass()
    assert host.revisions.numbers() == [2, 3, 4, 5]


def test_others_names_and_images_stay(host: Host) -> None:
    for number in (1, 2, 3):
        host.revision(number)
    foreign = host.build(1, fleet=f"{host.fleet}x")
    derived = host.build(1, parent=host.images[1])
    host.engine.images.get(host.images[1]).tag("driftguard.test/mine", host.fleet)
    host.engine.images.get(foreign).tag(f"{host.fleet}-worker", "of-another")
    host.engine.images.get(derived).tag("driftguard.test/derived", host.fleet)
    nameless = host.build(1, created="2025-01-01T00:00:00Z")
    host.prune(keep=1).must_pass()
    for image, names in (
            (host.images[1], [f"driftguard.test/mine:{host.fleet}"]), (foreign, [f"{host.fleet}-worker:of-another"]),
            (derived, [f"driftguard.test/derived:{host.fleet}"]), (nameless, [])):
        assert host.engine.images.get(image).tags == names
    host.images |= {11: foreign, 12: derived, 13: nameless}


def test_nothing_goes_where_nothing_was_proved(host: Host) -> None:
    host.revision(1, proved=False)
    host.revision(2, proved=False)
    assert not host.prune().must_pass().changed
    assert host.there() == {1, 2}


def test_a_damaged_revision_goes_and_one_that_must_stay_is_told(host: Host) -> None:
    for number in (1, 2, 3, 4):
        host.revision(number)
    (host.here / "revisions" / "1" / "release.json").write_text("{")
    host.prune().must_pass()
    assert host.revisions.numbers() == [3, 4]
    (host.here / "revisions" / "3" / "release.json").write_text(json.dumps([1]))
    host.prune().must_fail("3/release.json", "remove the revision's directory")
    assert host.revisions.numbers() == [3, 4]


def test_a_later_run_was_here(host: Host) -> None:
    for number in (1, 2, 3, 4):
        host.revision(number)
    HostRecords(host.root, host.fleet).enter(200, "later")
    host.prune().must_fail("deploy")
    assert host.revisions.numbers() == [1, 2, 3, 4]
    assert host.there() == {1, 2, 3, 4}
    host.prune(generation=300, keep=9).must_pass()
    host.prune(generation=250).must_fail("deploy")


@pytest.mark.parametrize("keep", [0, -1, 1001])
def test_how_many_can_be_kept(host: Host, keep: int) -> None:
    host.prune(keep=keep).must_fail("option keep")


def test_what_a_killed_run_left_is_no_revision_and_goes(host: Host) -> None:
    for number in (1, 2, 3):
        host.revision(number)
    left = host.here / "revisions" / ".gone-1"
    (host.here / "revisions" / "1").rename(left)
    done = host.prune().must_pass()
    assert not left.exists()
    assert done["revisions"] == []
    assert host.there() == host.secrets() == {2, 3}
