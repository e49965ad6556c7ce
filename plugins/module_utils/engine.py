# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that talks to the Docker Engine, through the SDK's low-level client."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence

from .container_files import own_paths
from .errors import DriftguardError

try:
    import docker
    import docker.errors
    import docker.utils
    import requests.exceptions
    import urllib3.exceptions

    MISSING: Optional[str] = None
    _FAILURES: tuple[type[Exception], ...] = (
        docker.errors.DockerException, requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,  # what a stream of rows ends with
    )
except ImportError as _error:
    MISSING = str(_error)
    _FAILURES = ()

START_INTERVAL_ENGINE = 25  # docker/cli 25.0: --health-start-interval, moby/moby#40894
API_TIMEOUT = 60
STOP_MARGIN = 30.0
# Of one that runs again: as many lines of its new start are passed over to find those before it.
NEW_LINES = 1000
_STAMPED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) ?(.*)", re.DOTALL)


class End(NamedTuple):
    """How a container ended, and when: nanoseconds since 1970, by the engine's clock as in its log."""

    status: int
    at: int


class Engine:
    """One Docker Engine.

    :param client: an ``APIClient``; :meth:`connect` makes one from ``DOCKER_HOST`` or the default socket.
    """

    def __init__(self, client: Any, version: str) -> None:
        self._client = client
        self.version = version

    @classmethod
    def connect(cls) -> Engine:
        """Connect and ask for the version.

        :raises DriftguardError: the SDK is missing or no engine answers.
        """
        if MISSING is not None:
            raise DriftguardError(
                "Python library docker",
                "to be installed for the interpreter that runs this module",
                MISSING,
                "run playbooks/bootstrap.yml, or install python3-docker (Debian) or the docker package",
            )
        try:
            client = docker.APIClient(version="auto", timeout=API_TIMEOUT, **docker.utils.kwargs_from_env())
            return cls(client, str(client.version()["Version"]))
        except _FAILURES as error:
            raise DriftguardError(
                "Docker Engine",
                "an engine that answers on its socket",
                _reason(error),
                "start the engine (systemctl start docker, or playbooks/bootstrap.yml) with this user allowed",
            ) from error

    @property
    def has_start_interval(self) -> bool:
        """Whether health checks may have a start interval of their own (engine 25 and later)."""
        return int(self.version.split(".", 1)[0]) >= START_INTERVAL_ENGINE

    def info(self) -> dict[str, Any]:
        """The engine's own description (``docker info``)."""
        with _asking("docker info"):
            return dict(self._client.info())

    # containers

    def network_names(self, labels: Iterable[str] = ()) -> set[str]:
        """Names of the networks on this engine that carry every one of the labels (``key`` or ``key=value``)."""
        with _asking("network list"):
            return {str(row["Name"]) for row in self._client.networks(filters={"label": list(labels)})}

    def volume_names(self) -> set[str]:
        """Names of the volumes on this engine."""
        with _asking("volumes"):
            return {str(row["Name"]) for row in self._client.volumes().get("Volumes") or []}

    def container_ids(self, labels: Iterable[str] = ()) -> list[str]:
        """Ids of all containers, in whatever state, that carry every one of the labels (``key`` or ``key=value``)."""
        with _asking("container list"):
            return [str(row["Id"]) for row in self._client.containers(all=True, filters={"label": list(labels)})]

    def container_rows(self, labels: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The engine's list of all containers (id, image, labels, state), running or not."""
        with _asking("container list"):
            return list(self._client.containers(all=True, filters={"label": list(labels)}))

    def container(self, container_id: str) -> Optional[dict[str, Any]]:
        """``docker inspect`` of one container, None when it is gone."""
        with _asking(f"container {container_id[:12]}"):
            try:
                return dict(self._client.inspect_container(container_id))
            except docker.errors.NotFound:
                return None

    def changes(self, facts: Mapping[str, Any]) -> list[str]:
        """Paths that differ between a container and its image, as ``docker diff`` lists them; none when it is gone.

        :param facts: the container as :meth:`container` returns it. An overlay file system keeps exactly these paths in
            one directory. Reading it takes a thousandth of the time that the engine takes for a diff.
        """
        container_id, seen = str(facts["Id"]), own_paths(facts)
        if seen is not None:
            return seen
        with _asking(f"container {container_id[:12]}"):
            try:
                return [str(row["Path"]) for row in self._client.diff(container_id) or ()]
            except docker.errors.NotFound:
                return []

    def stop(self, container_id: str, grace: int) -> None:
        """Send the stop signal, wait up to grace seconds, then kill; a container that is gone is stopped."""
        with _asking(f"stop of container {container_id[:12]}"):
            try:
                self._client._post(  # the SDK's stop() uses the client's own timeout, shorter than a long grace
                    self._client._url("/containers/{0}/stop", container_id),
                    params={"t": grace},
                    timeout=grace + STOP_MARGIN,
                ).raise_for_status()
            except requests.exceptions.HTTPError as error:
                if error.response is None or error.response.status_code != 404:
                    raise

    def remove(self, container_id: str) -> None:
        """Remove a container with its anonymous volumes; one that is gone is removed."""
        with _asking(f"removal of container {container_id[:12]}"):
            try:
                self._client.remove_container(container_id, v=True, force=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if "already in progress" not in str(error):
                    raise

    def last_end(self, container_id: str, seconds: int) -> Optional[End]:
        """How a container last ended within so many seconds: a restarted one no longer says it of itself."""
        until = int(time.time()) + 1
        filters = {"container": container_id, "event": "die"}
        with _asking(f"events of container {container_id[:12]}"):
            ends = list(self._client.events(since=until - seconds, until=until, filters=filters, decode=True))
        status = str(ends[-1]["Actor"]["Attributes"].get("exitCode", "")) if ends else ""
        return End(int(status), int(ends[-1]["timeNano"])) if status.isdigit() else None

    def logs(self, container_id: str, lines: int, end: Optional[End] = None) -> list[str]:
        """The last lines a container wrote, undecodable bytes replaced; empty when it is gone.

        :param end: those before it ended so, which it may have done before it was started again.
        """
        tail = lines if end is None else lines + NEW_LINES
        with _asking(f"logs of container {container_id[:12]}"):
            try:
                said = self._client.logs(
                    container_id, stdout=True, stderr=True, tail=tail, timestamps=end is not None)
            except docker.errors.NotFound:
                return []
            found = str(said.decode("utf-8", "replace")).splitlines()
            return found if end is None else _said_before(found, end.at)[-lines:]

    def execute(self, container_id: str, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in a running container as its own user; exit status and output."""
        with _asking(f"command in container {container_id[:12]}"):
            handle = self._client.exec_create(container_id, list(command))["Id"]
            said = self._client.exec_start(handle)
            status = self._client.exec_inspect(handle)["ExitCode"]
            return int(status if status is not None else 1), str((said or b"").decode("utf-8", "replace"))

    # images

    def image(self, reference: str) -> Optional[dict[str, Any]]:
        """``docker image inspect`` by id, tag or ``repo@digest``; None when this engine doesn't have it."""
        with _asking(f"image {reference}"):
            try:
                return dict(self._client.inspect_image(reference))
            except docker.errors.ImageNotFound:
                return None

    def images(self, labels: Iterable[str]) -> list[dict[str, Any]]:
        """The engine's list of images that carry every one of the labels."""
        with _asking("image list"):
            return list(self._client.images(filters={"label": list(labels)}))

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        """Give an image a name, taking it from whichever image has it."""
        with _asking(f"tag {repository}:{tag}"):
            self._client.tag(image_id, repository, tag, force=True)

    def remove_image(self, reference: str) -> None:
        """Remove a name, and the image when it was the last; gone is fine."""
        with _asking(f"removal of image {reference}"):
            try:
                self._client.remove_image(reference)
            except docker.errors.ImageNotFound:
                return

    def run_once(self, image: str, entrypoint: Sequence[str], labels: Mapping[str, str]) -> tuple[int, str]:
        """Run a throw-away container without network from an image; exit status and output. It is always removed."""
        with _asking(f"probe of image {image}"):
            created = self._client.create_container(
                image,
                entrypoint=list(entrypoint),
                command=[],
                labels=dict(labels),
                host_config=self._client.create_host_config(
                    network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges"]
                ),
            )
            try:
                self._client.start(created["Id"])
                status = int(self._client.wait(created["Id"])["StatusCode"])
                said = self._client.logs(created["Id"], stdout=True, stderr=True)
            finally:
                self._client.remove_container(created["Id"], v=True, force=True)
            return status, str(said.decode("utf-8", "replace"))

    @contextmanager
    def _timeout(self, seconds: float) -> Iterator[None]:
        before = self._client.timeout
        self._client.timeout = seconds
        try:
            yield
        finally:
            self._client.timeout = before


def _said_before(lines: Iterable[str], end: int) -> list[str]:
    """Lines of a log with times: those until one, without theirs. What one is broken into has none of its own."""
    seconds, rest = divmod(end, 10**9)
    last = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
    found, is_before = [], True
    for line in lines:
        stamped = _STAMPED.match(line)
        is_before = stamped.group(1) <= last if stamped else is_before
        if is_before:
            found.append(stamped.group(2) if stamped else line)
    return found


@contextmanager
def _asking(what: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise DriftguardError(
            f"Docker Engine, {what}",
            "an answer",
            _reason(error),
            "see the engine's log on this host (journalctl -u docker, or /var/log/dockerd.log) and run again",
        ) from error


def _reason(error: Exception) -> str:
    text = str(getattr(error, "explanation", None) or error)
    return " ".join(text.split())[:500]
