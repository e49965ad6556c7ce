# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the engine's gateway that builds images, reads into them, pushes and pulls them."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Mapping, Optional

from .engine import _FAILURES, Engine, _asking, _reason
from .errors import DriftguardError
from .registry_errors import registry_error, registry_of

with suppress(ImportError):  # Engine.connect says so
    import docker.auth
    import docker.errors

_SYMLINK, _DIRECTORY = 1 << 27, 1 << 31  # Go's os.FileMode, which the engine reports
_PUSHING = (
    "check the name, the registry's reachability, and worker_registry_username and worker_registry_password, or "
    "without them this user's docker login")
# The classic builder looks for a step in all images upon the same one, and gives the build up when one of those is
# removed meanwhile, whoever's it was (moby, image/cache: getLocalCachedImage).
_CACHE_LOST = "unable to find image "
_UNKNOWN = ("manifest unknown", "name unknown")  # what some registries say instead of 404


@dataclass(frozen=True)
class FileStat:
    """A file in an image.

    :param mode: permission bits.
    :param target: for a link, the absolute path that it leads to in the end.
    """

    mode: int
    directory: bool
    target: Optional[str]


class ImageFiles:
    """The files of an image, read through a container that is never started: it needs no shell and runs nothing."""

    def __init__(self, client: Any, container_id: str) -> None:
        self._client = client
        self._id = container_id

    def stat(self, path: str) -> Optional[FileStat]:
        """What is at an absolute path; links in its directory part are followed, the last one isn't."""
        with _asking(f"stat of {path}"):
            answer = self._client.head(
                self._client._url("/containers/{0}/archive", self._id), params={"path": path})
            if answer.status_code == 404:
                return None
            self._client._raise_for_status(answer)
            found = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
        mode = int(found["mode"])
        return FileStat(mode & 0o777, bool(mode & _DIRECTORY), found["linkTarget"] if mode & _SYMLINK else None)

    def members(self, path: str) -> list[tarfile.TarInfo]:
        """A file, or a directory with what is below it, as tar headers; empty where there is nothing."""
        archive = self._archive(path)
        return archive.getmembers() if archive else []

    def read(self, path: str) -> Optional[bytes]:
        """Content of a regular file; None where there is none."""
        archive = self._archive(path)
        stream = archive.extractfile(archive.getmembers()[0]) if archive else None
        return stream.read() if stream else None

    def _archive(self, path: str) -> Optional[tarfile.TarFile]:
        with _asking(f"read of {path}"):
            try:
                packed, _stat = self._client.get_archive(self._id, path)
            except docker.errors.NotFound:
                return None
            return tarfile.open(fileobj=io.BytesIO(b"".join(packed)))


@dataclass(frozen=True)
class Credentials:
    """Who one is for a registry. They go with each request that needs them, so no login is left on a host."""

    username: str
    password: str = field(repr=False)


class ImageEngine(Engine):
    """An engine that images are built on, or pulled to.

    :param credentials: for the registry; None for those of this user's Docker configuration.
    """

    def __init__(self, client: Any, version: str, credentials: Optional[Credentials] = None) -> None:
        super().__init__(client, version)
        self._login = {"username": credentials.username, "password": credentials.password} if credentials else None

    @classmethod
    def connect(cls, credentials: Optional[Credentials] = None) -> ImageEngine:
        """See :meth:`Engine.connect`."""
        plain = Engine.connect()
        return cls(plain._client, plain.version, credentials)

    def labelled(self, labels: Iterable[str]) -> list[str]:
        """Ids of all images that carry every one of the labels, also of those without a name that others build upon."""
        with _asking("image list"):
            return [str(row["Id"]) for row in self._client.images(all=True, filters={"label": list(labels)})]

    @contextmanager
    def files(self, image: str, labels: Mapping[str, str]) -> Iterator[ImageFiles]:
        """The files of an image while the context lasts.

        :param labels: of the container that stands for it.
        """
        with _asking(f"container of image {image}"):
            created = self._client.create_container(image, command=["-"], labels=dict(labels), network_disabled=True)
        try:
            yield ImageFiles(self._client, created["Id"])
        finally:
            self.remove(created["Id"])

    def build(
        self, *, timeout: float, labels: Optional[Mapping[str, str]] = None, nocache: bool = False, **options: Any,
    ) -> str:
        """Build with the engine's own (classic) builder.

        :param timeout: seconds of silence after which it is given up.
        :param nocache: take no step from an earlier build.
        :param options: of the SDK's ``build``: path, or fileobj and custom_context; dockerfile, buildargs, target, tag.
        :returns: id of the image.
        :raises DriftguardError: the build failed; its last lines are what was found.
        """
        said: list[str] = []
        identity = ""
        with _asking("build"):
            for row in self._client.build(
                    rm=True, forcerm=True, decode=True, timeout=timeout, labels=dict(labels or {}), nocache=nocache,
                    **options):
                identity = (row.get("aux") or {}).get("ID", identity)
                said.extend(str(row.get("stream") or row.get("error") or "").splitlines())
                if "error" not in row:
                    continue
                if not nocache and str(row["error"]).startswith(_CACHE_LOST):
                    return self.build(timeout=timeout, labels=labels, nocache=True, **options)
                raise DriftguardError(
                    "build", "the Dockerfile to build", "\n".join(line for line in said if line.strip())[-4000:],
                    "mend what the last lines name")
        return identity

    def push(self, repository: str, tag: str, timeout: float) -> str:
        """Push one tag.

        :param timeout: seconds of silence after which it is given up.
        :returns: digest of the manifest.
        :raises DriftguardError: the registry refused or didn't answer.
        """
        digest = ""
        with _asking(f"push of {repository}:{tag}"), self._timeout(timeout):
            for row in self._client.push(
                    repository, tag=tag, stream=True, decode=True, auth_config=self._login):
                digest = (row.get("aux") or {}).get("Digest", digest)
                if "error" in row:
                    raise DriftguardError(
                        f"push of {repository}:{tag}", "the registry to take it", str(row["error"]),
                        _PUSHING)
        return digest

    def pull(self, what: str, reference: str, timeout: float) -> None:
        """Pull by ``repo@digest``; the engine checks that what it gets has the digest.

        :param what: what it is about, for the message.
        :param timeout: seconds after which it is given up; a pull in which the engine falls silent, after twice these.
        :raises DriftguardError: the registry doesn't give it, in time.
        """
        end = time.monotonic() + timeout
        repository, _at, digest = reference.partition("@")
        try:
            # The SDK's pull() waits without end.
            answer = self._client._post(
                self._client._url("/images/create"), params={"fromImage": repository, "tag": digest},
                headers=self._registry_header(repository), stream=True, timeout=timeout)
            self._client._raise_for_status(answer)
            for row in self._client._stream_helper(answer, decode=True):
                if "error" in row:
                    raise registry_error(what, reference, str(row["error"]))
                if time.monotonic() > end:
                    raise registry_error(what, reference, f"timed out after {timeout:g} s, unfinished")
        except _FAILURES as error:
            raise registry_error(what, reference, _reason(error)) from error

    def _registry_header(self, repository: str) -> dict[str, str]:
        if self._login:
            return {"X-Registry-Auth": docker.auth.encode_header(self._login).decode("ascii")}
        found = docker.auth.get_config_header(self._client, registry_of(repository))
        return {"X-Registry-Auth": found.decode("ascii")} if found else {}

    def registry_digest(self, reference: str, timeout: float) -> Optional[str]:
        """The digest that a registry has for a tag; None when it has none.

        :raises DriftguardError: the registry can't be asked.
        """
        with _asking(f"registry's word on {reference}"), self._timeout(timeout):
            try:
                return str(self._client.inspect_distribution(
                    reference, auth_config=self._login)["Descriptor"]["digest"])
            except docker.errors.NotFound:
                return None
            except docker.errors.APIError as error:
                if any(word in str(error) for word in _UNKNOWN):
                    return None
                raise DriftguardError(
                    f"registry of {reference}", "an answer", str(error.explanation or error)[:300],
                    _PUSHING) from error

    def tags_of(self, repository: str) -> list[str]:
        """All tags of a repository, as ``repository:tag``."""
        with _asking(f"tags of {repository}"):
            rows = self._client.images(name=repository)
        return [tag for row in rows for tag in row["RepoTags"] or () if tag.startswith(f"{repository}:")]
