# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry for tests: Debian's own, in a container. On loopback engines need no TLS; elsewhere they insist on it."""

from __future__ import annotations

import base64
import io
import shutil
import ssl
import subprocess
import tarfile
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import docker

from .bridge import bridge_address
from .certificates import make_certificates
from .fleet import wait_for
from .registry_image import DOCKERFILE

__all__ = ["Closed", "Registry", "closed_registry", "running_registry"]

IMAGE = "driftguard.local/test-registry:2"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Closed:
    """What a registry asks for.

    :param place: its certificates, as make_certificates leaves them.
    :param address: where it is published; no loopback, where engines would do without TLS.
    """

    place: Path
    address: str
    username: str
    password: str

    def environment(self) -> dict[str, str]:
        """Variables that make a registry ask for it."""
        return {
            "REGISTRY_HTTP_TLS_CERTIFICATE": "/closed/server.crt", "REGISTRY_HTTP_TLS_KEY": "/closed/server.key",
            "REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "test",
            "REGISTRY_AUTH_HTPASSWD_PATH": "/closed/htpasswd"}

    def files(self) -> bytes:
        """What belongs into its /closed, as tar."""
        hashed = subprocess.run(
            ["docker", "run", "--rm", "-i", "--network=none", "--label=io.driftguard.test=registry", IMAGE,
             "htpasswd", "-niB", self.username], input=self.password, check=True, capture_output=True, text=True)
        texts = {name: (self.place / name).read_text() for name in ("server.crt", "server.key")}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, text in {**texts, "htpasswd": hashed.stdout}.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        return packed.getvalue()


class Registry:
    """A registry that runs; an engine on this machine can push to it and pull from it."""

    def __init__(self, container: Any, closed: Closed | None = None) -> None:
        self._container = container
        self.closed = closed
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["5000/tcp"][0]["HostPort"]
        self.name = f"{closed.address if closed else '127.0.0.1'}:{port}"

    def digest(self, repository: str, tag: str) -> str | None:
        """Digest of the manifest that a tag names; None where there is no such tag."""
        try:
            return str(self._ask("HEAD", f"{repository}/manifests/{tag}").headers["Docker-Content-Digest"])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def forget(self, repository: str, digest: str) -> None:
        """Remove a manifest with all its tags."""
        self._ask("DELETE", f"{repository}/manifests/{digest}")

    def kill(self) -> None:
        """End it."""
        self._container.kill()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections and never answers, as long as the context lasts."""
        self._container.pause()
        try:
            yield
        finally:
            self._container.unpause()

    def requests(self) -> list[str]:
        """What it was asked since it runs: its access log's request lines."""
        said = self._container.logs().decode("utf-8", "replace").splitlines()
        return [line.split('"')[1] for line in said if '] "' in line]

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return bool(self._ask("GET", "").status == 200)
        except OSError:
            return False

    def _ask(self, method: str, path: str) -> Any:
        headers = {"Accept": MANIFEST}
        context = None
        if self.closed:
            said = base64.b64encode(f"{self.closed.username}:{self.closed.password}".encode()).decode()
            headers["Authorization"] = f"Basic {said}"
            context = ssl.create_default_context(cafile=str(self.closed.place / "ca.crt"))
        url = f"http{'s' if context else ''}://{self.name}/v2/{path}"
        return urllib.request.urlopen(
            urllib.request.Request(url, method=method, headers=headers), timeout=10, context=context)


@contextmanager
def running_registry(base: str, closed: Closed | None = None) -> Iterator[Registry]:
    """Build the registry's image (once for a base: builders remember) and run it.

    :param base: reference of the base image.
    :param closed: what it asks for; nothing, on loopback, without it.
    """
    subprocess.run(
        ["docker", "buildx", "build", "-q", "--builder=default", "--load", "--provenance=false",
         f"--build-arg=BASE_IMAGE={base}", "-t", IMAGE, "-"],
        input=DOCKERFILE, check=True, capture_output=True, text=True)
    engine = docker.from_env()
    container = engine.containers.create(
        IMAGE, ports={"5000/tcp": (closed.address if closed else "127.0.0.1", 0)},
        labels={"io.driftguard.test": "registry"}, tmpfs={"/data": ""},
        environment=closed.environment() if closed else {})
    try:
        if closed:
            container.put_archive("/closed", closed.files())
        container.start()
        registry = Registry(container, closed)
        wait_for(registry.answers, "the registry to answer")
        yield registry
    finally:
        container.remove(force=True, v=True)
        engine.close()


@contextmanager
def closed_registry(base: str, place: Path, trusted: bool = True) -> Iterator[Registry]:
    """A registry with TLS and a password, where this machine's engine insists on both.

    :param place: for its certificates.
    :param trusted: whether the engine knows its certificate authority.
    """
    address = bridge_address()
    make_certificates(place, address)
    with running_registry(base, Closed(place, address, "deployer", f"registry-{place.name}-secret")) as registry:
        known = Path("/etc/docker/certs.d") / registry.name
        try:
            if trusted:
                known.mkdir(parents=True)
                shutil.copyfile(place / "ca.crt", known / "ca.crt")
            yield registry
        finally:
            shutil.rmtree(known, ignore_errors=True)
