# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry for tests: Debian's own, in a container that is published on loopback, where engines need no TLS."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import Any, Iterator

import docker

from .fleet import wait_for

__all__ = ["Registry", "running_registry"]

IMAGE = "driftguard.local/test-registry:1"
DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -q && apt-get install -qy --no-install-recommends docker-registry && rm -rf /var/lib/apt/lists
RUN printf '%s\\n' 'version: 0.1' 'storage: {filesystem: {rootdirectory: /data}, delete: {enabled: true}}' \
    'http: {addr: ":5000"}' >/registry.yml
CMD ["docker-registry", "serve", "/registry.yml"]
"""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """A registry that runs; an engine on this machine can push to it and pull from it."""

    def __init__(self, container: Any) -> None:
        self._container = container
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["5000/tcp"][0]["HostPort"]
        self.name = f"127.0.0.1:{port}"

    def digest(self, repository: str, tag: str) -> str | None:
        """Digest of the manifest that a tag names; None where there is no such tag."""
        try:
            return str(self._ask("HEAD", repository, tag).headers["Docker-Content-Digest"])
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def forget(self, repository: str, digest: str) -> None:
        """Remove a manifest with all its tags."""
        self._ask("DELETE", repository, digest)

    def kill(self) -> None:
        """End it."""
        self._container.kill()

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return bool(urllib.request.urlopen(f"http://{self.name}/v2/", timeout=2).status == 200)
        except OSError:
            return False

    def _ask(self, method: str, repository: str, reference: str) -> Any:
        url = f"http://{self.name}/v2/{repository}/manifests/{reference}"
        return urllib.request.urlopen(
            urllib.request.Request(url, method=method, headers={"Accept": MANIFEST}), timeout=10)


@contextmanager
def running_registry(base: str) -> Iterator[Registry]:
    """Build the registry's image (once for a base: builders remember) and run it.

    :param base: reference of the base image.
    """
    subprocess.run(
        ["docker", "buildx", "build", "-q", "--builder=default", "--load", "--provenance=false",
         f"--build-arg=BASE_IMAGE={base}", "-t", IMAGE, "-"],
        input=DOCKERFILE, check=True, capture_output=True, text=True)
    engine = docker.from_env()
    container = engine.containers.run(
        IMAGE, detach=True, ports={"5000/tcp": ("127.0.0.1", 0)}, labels={"io.driftguard.test": "registry"},
        tmpfs={"/data": ""})
    try:
        registry = Registry(container)
        wait_for(registry.answers, "the registry to answer")
        yield registry
    finally:
        container.remove(force=True, v=True)
        engine.close()
