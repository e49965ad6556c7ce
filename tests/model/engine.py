# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker Engine that is simulated: containers that crash, restart and outlive it, and compose as a rollout calls it.

``tests/integration/test_model_engine.py`` holds it to the real one.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

import yaml
from ansible_collections.driftguard.workers.plugins.module_utils.engine import End
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_values import size

__all__ = ["Badness", "Clock", "Image", "SimContainer", "SimEngine"]

EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z
HEALTHY_AFTER = 2.0
FIRST_RESTART, LONGEST_RESTART = 0.1, 60.0  # moby: the delay doubles, and starts anew after ten seconds of running
CALM = 10.0


@dataclass
class Clock:
    """The world's time, in seconds since 1970.

    :param moved: called after each move.
    """

    now: float = EPOCH
    moved: Callable[[], None] = lambda: None

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.now += max(seconds, 0.0)
        self.moved()


@dataclass(frozen=True)
class Badness:
    """What is wrong with a release: in which service, on which host (empty: everywhere).

    :param kind: ``crash``, ``unhealthy``, ``silent`` (never registers) or ``liar`` (registers another commit).
    :param after: seconds after its start.
    """

    kind: str = ""
    after: float = 0.0
    service: str = ""
    host: str = ""

    def of(self, service: str, host: str) -> str:
        """Its kind where it shows, empty elsewhere."""
        here = self.service in ("", service) and self.host in ("", host)
        return self.kind if here else ""


@dataclass(frozen=True)
class Image:
    """An image of a release, as any engine has it."""

    reference: str
    id: str
    sha: str
    release_id: str
    badness: Badness = field(default_factory=Badness)


@dataclass
class SimContainer:
    """One container and the process in it."""

    id: str
    name: str
    image: Image
    service: str
    body: Mapping[str, Any]
    labels: Mapping[str, str]
    host: str
    status: str = "created"
    started: float = 0.0
    restarts: int = 0
    exit_code: int = 0
    delay: float = FIRST_RESTART
    next_start: Optional[float] = None

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.status == "running"

    @property
    def badness(self) -> str:
        """What is wrong with it."""
        return self.image.badness.of(self.service, self.host)

    def health(self, now: float) -> Optional[str]:
        """As the engine says it; None without a health check."""
        if not self.body.get("healthcheck") or self.body["healthcheck"].get("disable"):
            return None
        if now - self.started < HEALTHY_AFTER:
            return "starting"
        bad = self.badness == "unhealthy" and now - self.started >= self.image.badness.after
        return "unhealthy" if bad else "healthy"


class SimEngine:
    """One host's engine, with the gateway's interface as far as a deploy uses it.

    :param admits: whether the guard lets a container's release start.
    :param images: reference → image, of all engines.
    """

    version = "26.1.5"
    has_start_interval = True

    def __init__(
        self, host: str, clock: Clock, images: Mapping[str, Image], admits: Callable[[SimContainer], bool],
    ) -> None:
        self.host = host
        self.containers: dict[str, SimContainer] = {}
        self.networks: set[str] = set()
        self.local: set[str] = set()
        self.dead = False
        self.after_stop: Callable[[str], None] = lambda _container_id: None
        self.before_call: Callable[[str], None] = lambda _what: None
        self._clock = clock
        self._images = images
        self._admits = admits
        self._numbers = itertools.count(1)

    # what happens by itself

    def settle(self) -> None:
        """Let happen what was due by now: ends, restarts. A dead engine restarts nothing."""
        for container in list(self.containers.values()):
            while self._due(container):
                pass

    def _due(self, container: SimContainer) -> bool:
        now = self._clock.now
        if container.running:
            end = self._end_of(container)
            if end is not None and end <= now:
                self._ended(container, end)
                return True
        elif container.next_start is not None and container.next_start <= now and not self.dead:
            self._start(container, container.next_start)
            container.restarts += 1
            return True
        return False

    def _end_of(self, container: SimContainer) -> Optional[float]:
        if container.badness == "crash":
            return container.started + container.image.badness.after
        return None

    def _ended(self, container: SimContainer, at: float) -> None:
        calm = at - container.started >= CALM
        container.delay = FIRST_RESTART if calm else min(container.delay * 2, LONGEST_RESTART)
        container.status, container.exit_code = "restarting", 1
        container.next_start = at + container.delay

    def _start(self, container: SimContainer, at: float) -> None:
        container.status, container.started, container.next_start = "running", at, None
        if not self._admits(container):
            self._ended(container, at)

    def revive(self) -> None:
        """The engine is back: what ran goes on (live-restore or not, always restarts it)."""
        self.dead = False
        for container in self.containers.values():
            if container.status == "exited" and container.next_start == float("inf"):
                container.next_start = self._clock.now
        self.settle()

    def kill(self) -> None:
        """The engine is gone; its containers' processes live on."""
        self.dead = True

    def prune(self) -> bool:
        """Somebody removes the images that no container uses; whether there were any."""
        before = self.local
        self.local = before & {one.image.id for one in self.containers.values()}
        return self.local != before

    # the gateway's interface

    def _call(self, what: str) -> None:
        self.before_call(what)
        if self.dead:
            raise DriftguardError(f"Docker Engine, {what}", "an answer", "connection refused", "start the engine")

    def network_names(self, labels: Iterable[str] = ()) -> set[str]:
        self._call("network list")
        return {name for name in self.networks if list(labels) in ([], [f"com.docker.compose.project={name[:-8]}"])}

    def volume_names(self) -> set[str]:
        self._call("volumes")
        return set()

    def container_ids(self, labels: Iterable[str] = ()) -> list[str]:
        return [str(row["Id"]) for row in self.container_rows(labels)]

    def container_rows(self, labels: Iterable[str] = ()) -> list[dict[str, Any]]:
        self._call("container list")
        wanted = [label.partition("=") for label in labels]
        return [
            {"Id": one.id, "Image": one.image.reference, "ImageID": one.image.id, "Labels": dict(one.labels),
             "State": one.status}
            for one in self.containers.values()
            if all(key in one.labels and (not sign or one.labels[key] == value) for key, sign, value in wanted)]

    def container(self, container_id: str) -> Optional[dict[str, Any]]:
        self._call("container")
        one = self.containers.get(container_id)
        return None if one is None else self._inspected(one)

    def _inspected(self, one: SimContainer) -> dict[str, Any]:
        health = one.health(self._clock.now) if one.running else None
        state = {
            "Status": one.status, "Restarting": one.status == "restarting", "ExitCode": 0 if one.running else
            one.exit_code, "OOMKilled": False, "StartedAt": _iso(one.started)}
        check = one.body.get("healthcheck") or {}
        return {
            "Id": one.id, "Name": f"/{one.name}", "Image": one.image.id, "RestartCount": one.restarts,
            "State": {**state, "Health": {"Status": health}} if health else state,
            "Config": {
                "Image": one.image.reference, "Labels": dict(one.labels), "Entrypoint": one.body["entrypoint"],
                "Env": [f"GIT_SHA={one.image.sha}", *(f"{k}={v}" for k, v in one.body["environment"].items())],
                "Cmd": one.body["command"], "StopTimeout": int(str(one.body["stop_grace_period"]).rstrip("s")),
                "Healthcheck": {"Test": check["test"]} if check.get("test") else None},
            "HostConfig": {
                "RestartPolicy": {"Name": one.body["restart"]},
                "Memory": _bytes(one.body["deploy"]["resources"]["limits"]["memory"])},
            "Mounts": [
                {"Destination": mount["target"], "Source": mount["source"], "RW": not mount["read_only"]}
                for mount in one.body["volumes"]],
        }

    def changes(self, facts: Mapping[str, Any]) -> list[str]:
        self._call("changes")
        return []

    def stop(self, container_id: str, grace: int) -> None:
        self._call("stop")
        one = self.containers.get(container_id)
        if one is not None:
            if one.running:
                self.after_stop(container_id)
            one.status, one.exit_code, one.next_start = "exited", 0, None

    def remove(self, container_id: str) -> None:
        self._call("remove")
        self.containers.pop(container_id, None)

    def last_end(self, container_id: str, seconds: int) -> Optional[End]:
        self._call("events")
        one = self.containers.get(container_id)
        return End(one.exit_code, 0) if one is not None and one.restarts else None

    def logs(self, container_id: str, lines: int, end: Optional[End] = None) -> list[str]:
        self._call("logs")
        one = self.containers.get(container_id)
        return [f"[worker] {one.badness}"] if one is not None and one.badness else []

    def image(self, reference: str) -> Optional[dict[str, Any]]:
        self._call("image")
        found = self._images.get(reference)
        return None if found is None or found.id not in self.local else {
            "Id": found.id, "RepoTags": [], "RepoDigests": [found.reference],
            "Config": {
                "Labels": _stamps(found), "Env": [f"GIT_SHA={found.sha}"], "WorkingDir": "/work",
                "Entrypoint": [], "Cmd": ["python", "-m", "worker"]}}

    def images(self, labels: Iterable[str]) -> list[dict[str, Any]]:
        self._call("images")
        return [
            {"Id": one.id, "RepoTags": [], "RepoDigests": [one.reference], "Labels": _stamps(one)}
            for one in {image.id: image for image in self._images.values()}.values() if one.id in self.local]

    def pull(self, what: str, reference: str, timeout: float) -> None:
        self._call("pull")
        self.local.add(self._images[reference].id)

    # compose, as rollout_run.py calls it

    def compose(self, arguments: Sequence[str]) -> Optional[str]:
        """``docker compose`` with these arguments; what it failed with, None for nothing."""
        words = list(arguments)
        project = words[words.index("--project-name") + 1]
        try:
            if "config" in words:
                return None
            if words[-1] == "down":
                self._call("compose down")
                self.networks.discard(f"{project}_default")
                return None
            up = words.index("up")
            file = Path(words[words.index("--file") + 1])
            pairs = zip(words[up:-1], words[up + 1:], strict=True)
            scales = dict(word.split("=") for before, word in pairs if before == "--scale")
            named = [
                word for word in words[up + 1:] if not word.startswith("-") and word != "never" and "=" not in word]
            self._up(project, file, named, scales)
        except DriftguardError as error:
            return error.found
        return None

    def _up(self, project: str, file: Path, services: Sequence[str], scales: Mapping[str, str]) -> None:
        document = _document(file.read_text(encoding="utf-8"))
        self._call("compose up")
        self.networks.add(f"{project}_default")
        made = []
        for service in sorted(services):
            body = document["services"][service]
            own = [one for one in self.containers.values() if self._is(one, project, service)]
            made += [one for one in own if one.status in ("created", "exited")]
            for _lacking in range(int(scales.get(service, body["deploy"]["replicas"])) - len(own)):
                self._call(f"create {service}")
                made.append(self._create(project, service, body))
        for one in made:
            self._call(f"start {one.service}")
            self._start(one, self._clock.now)
            one.restarts = 0

    @staticmethod
    def _is(one: SimContainer, project: str, service: str) -> bool:
        return one.labels["com.docker.compose.project"] == project and one.service == service

    def _create(self, project: str, service: str, body: Mapping[str, Any]) -> SimContainer:
        taken = {int(one.labels["com.docker.compose.container-number"]) for one in self.containers.values()
                 if self._is(one, project, service)}
        number = max(taken, default=0) + 1
        image = self._images.get(body["image"])
        if image is None or image.id not in self.local:
            raise DriftguardError("compose", "the image", f"No such image: {body['image']}", "pull it")
        identity = hashlib.sha256(f"{self.host} {next(self._numbers)}".encode()).hexdigest()
        labels = {
            **_stamps(image), **body["labels"], "com.docker.compose.project": project,
            "com.docker.compose.service": service, "com.docker.compose.container-number": str(number),
            "com.docker.compose.oneoff": "False"}
        made = SimContainer(identity, f"{project}-{service}-{number}", image, service, body, labels, self.host)
        self.containers[identity] = made
        return made


def _stamps(image: Image) -> dict[str, str]:
    return {
        "org.opencontainers.image.revision": image.sha, "io.driftguard.release": image.release_id,
        "io.driftguard.variant": "base", "io.driftguard.fleet": "demo"}


def _iso(seconds: float) -> str:
    if not seconds:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


@lru_cache(maxsize=2000)
def _document(text: str) -> Any:
    return yaml.load(text, Loader=yaml.CSafeLoader)


@lru_cache(maxsize=None)
def _bytes(text: str) -> int:
    return int(size(text))
