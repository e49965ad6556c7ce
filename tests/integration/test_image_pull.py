# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts get the images that they lack, from a registry with TLS and a password, and leave no login behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

import docker.errors
import pytest
from support.image_app import App, recorded_engine
from support.modules import ModuleRun, run_module
from support.registry import Registry, closed_registry

SMALL = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS whole
RUN for file in /bin/dash $(ldd /bin/dash | grep -o '/[^ ]*'); do \\
      mkdir -p "/out$(dirname "$file")" && cp -L "$file" "/out$file"; done; ln -s dash /out/bin/sh
FROM scratch
COPY --from=whole /out /
CMD ["sh"]
"""


@pytest.fixture(scope="module")
def registry(base_reference: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with closed_registry(base_reference, tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def app(tmp_path: Path, base_reference: str) -> Iterator[App]:
    made = App(tmp_path, base_reference)
    made.commit(SMALL)
    yield made
    made.close()


def login(registry: Registry) -> dict[str, Any]:
    assert registry.closed
    return {"registry_username": registry.closed.username, "registry_password": registry.closed.password}


def pushed(app: App, registry: Registry, *variants: str) -> dict[str, Any]:
    """A release in the registry; nothing of it is left on this engine."""
    release: dict[str, Any] = app.build(
        push=True, repository=f"{registry.name}/shop/{app.fleet}",
        variants={name: {} for name in variants or ("base",)}, **login(registry)).must_pass()["release"]
    forget(app)
    return release


def forget(app: App) -> None:
    for name in [*app.tags(), *app.images()]:
        try:
            app.engine.images.remove(name, force=True)
        except docker.errors.ImageNotFound:
            continue
    assert app.images() == {}


def pull(app: App, release: dict[str, Any], check: bool = False, uses: tuple[str, ...] = ("base",), **options: Any
         ) -> ModuleRun:
    services = {
        f"service-{name}": {"variant": name, "replicas": 1, "image": "", "spec": "", "grace": 1, "memory": 1}
        for name in uses}
    return run_module("worker_image_pull", check, **{
        "fleet": app.fleet, "host": "here", "revision": "1", "root": str(app.temporary),
        "desired": {"release": release, "services": services}, **options})


def test_check_pull_and_nothing_more_to_pull(app: App, registry: Registry) -> None:
    release = pushed(app, registry)
    image = release["variants"]["base"]
    for _twice in range(2):
        predicted = pull(app, release, check=True, **login(registry)).must_pass()
        assert predicted.changed
        assert app.images() == {}
    done = pull(app, release, **login(registry)).must_pass()
    assert done["missing"] == predicted["missing"] == [
        {"variant": "base", "image": image["image"], "size": image["size"]}]
    assert done["diff"] == predicted["diff"]
    assert app.engine.images.get(image["image"]).id == image["id"]
    for check in (True, False):
        idle = pull(app, release, check=check, **login(registry)).must_pass()
        assert (idle.changed, idle["missing"], idle["present"]) == (False, [], [image["image"]])


def test_only_what_the_hosts_services_use_is_pulled(app: App, registry: Registry) -> None:
    release = pushed(app, registry, "base", "ocr", "gpu")
    done = pull(app, release, uses=("base", "ocr"), **login(registry)).must_pass()
    assert [row["variant"] for row in done["missing"]] == ["base", "ocr"]
    with pytest.raises(docker.errors.ImageNotFound):
        app.engine.images.get(release["variants"]["gpu"]["image"])


def test_for_what_is_there_the_registry_is_not_asked(app: App, registry: Registry) -> None:
    release = pushed(app, registry)
    pull(app, release, **login(registry)).must_pass()
    asked = registry.requests()
    with registry.paused():
        assert not pull(app, release, timeout=5, **login(registry)).must_pass().changed
    assert registry.requests() == asked


def test_a_paused_registry_is_given_up(app: App, registry: Registry) -> None:
    release = pushed(app, registry)
    with registry.paused():
        pull(app, release, timeout=2, **login(registry)).must_fail(
            f"host here, variant base of release {release['release_id']}", "within the time limit",
            "worker_pull_timeout")
    assert app.images() == {}
    pull(app, release, **login(registry)).must_pass()


def test_a_registry_that_is_down(app: App, tmp_path: Path, base_reference: str) -> None:
    place = tmp_path / "down"
    place.mkdir()
    with closed_registry(base_reference, place) as registry:
        release = pushed(app, registry)
        registry.kill()
        pull(app, release, **login(registry)).must_fail(
            "a registry that this host reaches", "connection refused", "start the registry")


def test_an_unknown_authority(app: App, tmp_path: Path, base_reference: str) -> None:
    place = tmp_path / "unknown"
    place.mkdir()
    with closed_registry(base_reference, place) as registry:
        release = pushed(app, registry)
        known = Path("/etc/docker/certs.d") / registry.name / "ca.crt"
        text = known.read_text()
        known.unlink()
        pull(app, release, **login(registry)).must_fail(
            "unknown authority", f"/etc/docker/certs.d/{registry.name}/ca.crt", "docker_host_registry_authorities")
        known.write_text(text)
        pull(app, release, **login(registry)).must_pass()


@pytest.mark.parametrize("with_user", [True, False])
def test_a_wrong_password_and_none(app: App, registry: Registry, with_user: bool) -> None:
    release = pushed(app, registry)
    given = {**login(registry), "registry_password": "wrong-password-1"} if with_user else {}
    failed = pull(app, release, **given).must_fail(
        "a registry that lets this host pull", "worker_registry_username and worker_registry_password")
    assert "wrong-password-1" not in failed.output


def test_an_image_that_the_registry_has_lost(app: App, registry: Registry) -> None:
    release = pushed(app, registry)
    registry.forget(f"shop/{app.fleet}", release["variants"]["base"]["digest"])
    pull(app, release, **login(registry)).must_fail("a registry that still has it", "push it again")


def test_an_image_of_another_release_under_that_digest(app: App, registry: Registry) -> None:
    release = pushed(app, registry)
    forged = json.loads(json.dumps(release).replace(release["release_id"][13:], "0" * 12))
    pull(app, forged, **login(registry)).must_fail("io.driftguard.release", "don't belong together")
    there = pull(app, forged, check=True, **login(registry))
    there.must_fail("io.driftguard.release")


def test_no_login_is_left_and_no_password_shown(app: App, registry: Registry, tmp_path: Path) -> None:
    release = pushed(app, registry)
    home = Path(os.environ.get("HOME", "/root")) / ".docker" / "config.json"
    before = home.read_text() if home.exists() else None
    done = pull(app, release, **login(registry)).must_pass()
    assert registry.closed
    assert registry.closed.password not in done.output
    assert (home.read_text() if home.exists() else None) == before
    left = subprocess.run(
        ["grep", "-rlF", registry.closed.password, str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert left == ""


def test_an_engine_that_falls_silent_in_mid_pull_is_given_up(app: App, registry: Registry, tmp_path: Path) -> None:
    release = pushed(app, registry)
    with silent_engine(tmp_path) as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        pull(app, release, timeout=2, **login(registry)).must_fail("within the time limit", "timed out")


def test_a_full_disk_and_other_content_are_told(app: App, registry: Registry, tmp_path: Path) -> None:
    release = pushed(app, registry)
    said = {
        "write /var/lib/docker/tmp/GetImageBlob1: no space left on device": "prune-workers.yml",
        "manifest verification failed for digest sha256:00": "gives out something else"}
    for row, remedy in said.items():
        place = tmp_path / remedy[:5]
        place.mkdir()
        with silent_engine(place, json.dumps({"error": row}).encode()) as host, pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", host)
            pull(app, release, timeout=20, **login(registry)).must_fail(row, remedy)


def test_pushing_with_a_wrong_password(app: App, registry: Registry) -> None:
    options: dict[str, Any] = {"push": True, "repository": f"{registry.name}/shop/{app.fleet}"}
    app.build(**options, **{**login(registry), "registry_password": "wrong-password-1"}).must_fail(
        "worker_registry_password")
    app.build(**options).must_fail("worker_registry_password")
    app.build(**options, **login(registry)).must_pass()


def test_check_mode_only_reads(app: App, registry: Registry, tmp_path: Path) -> None:
    release = pushed(app, registry)
    with recorded_engine(tmp_path) as (host, requests), pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        assert pull(app, release, check=True, **login(registry)).must_pass().changed
    assert requests
    assert {request.split()[0] for request in requests} <= {"GET", "HEAD"}


BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def silent_engine(directory: Path, row: bytes = b"") -> Iterator[str]:
    """The engine, but a pull begins and then gets one row, or no word any more; its ``DOCKER_HOST``."""
    path = directory / "silent.sock"
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _address = listener.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        held.append(client)
        engine = socket.socket(socket.AF_UNIX)
        engine.connect("/var/run/docker.sock")
        while data := client.recv(65536):
            if b"/images/create" in data:
                client.sendall(BEGUN + (b"%x\r\n%s\r\n0\r\n\r\n" % (len(row), row) if row else b""))
                continue
            engine.sendall(data)
            client.sendall(engine.recv(1 << 20))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"unix://{path}"
        finally:
            for one in held:
                one.close()
            listener.shutdown(socket.SHUT_RDWR)
