# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world that the model's runs act upon: hosts with engines and files, one real Redis, a clock, and faults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Optional

from model.engine import Badness, Clock, Image, SimEngine
from model.faults import Fault, Killed, Under
from model.interpreter import Chance, Ending, Inventory, Run, World
from model.lease import LeaseTime
from model.modules import Modules
from model.playbook import PROJECT, Task, plays
from model.publications import Publications, Silence
from model.workers import Workers

__all__ = ["FLEET", "Fault", "Killed", "Model", "Release"]

FLEET = "demo"
SERVICES: dict[str, Any] = {"extractor": {"memory": "64M"}, "ocr": {"memory": "64M", "replicas": 2}}
DEFAULTS = {"stop_grace_period": "20s", "drain_time": "5s"}
ALL_SERVICES = ("extractor", "ocr")
STEP_SECONDS = 0.3


@dataclass(frozen=True)
class Release:
    """A commit that can be deployed."""

    name: str
    badness: Badness = field(default_factory=Badness)

    @property
    def sha(self) -> str:
        """Its commit."""
        return hashlib.sha1(self.name.encode(), usedforsecurity=False).hexdigest()

    @property
    def release_id(self) -> str:
        """Its id."""
        return f"{self.sha[:12]}.{'ab' * 6}"

    @property
    def image(self) -> Image:
        """Its image."""
        digest = "sha256:" + hashlib.sha256(self.name.encode()).hexdigest()
        reference = f"registry.test/demo-worker@{digest}"
        return Image(reference, "sha256:" + digest[:6:-1].ljust(64, "0"), self.sha, self.release_id, self.badness)

    def data(self) -> dict[str, Any]:
        """As worker_image returns it."""
        reference, image_id = self.image.reference, self.image.id
        base = {
            "variant": "base", "image": reference, "id": image_id, "digest": reference.partition("@")[2],
            "repository": "registry.test/demo-worker", "tags": [], "size": 1, "entrypoint": [],
            "cmd": ["python", "-m", "worker"], "working_dir": "/work", "uid": 10001, "gid": 10001, "guard": "python",
            "guard_program": "/usr/bin/python3", "volumes": [], "healthcheck": True}
        return {
            "fleet": FLEET, "release_id": self.release_id, "sha": self.sha, "created": "2026-01-01T00:00:00Z",
            "variants": {"base": base}}


class Model(World):
    """Hosts, releases, Redis and time; runs playbooks on them.

    :param directory: for the hosts' files.
    :param redis: a client of the Redis that stands for the fleet's.
    """

    def __init__(self, directory: Path, redis: Any, hosts: tuple[str, ...]) -> None:
        self.directory, self.redis = directory, redis
        self.clock: Clock = Clock()
        self.images: dict[str, Image] = {}
        self.built: set[str] = set()
        self.roots = {host: directory / host for host in hosts}
        self.lease = LeaseTime(redis, self.clock, f"{FLEET}:lock:deploy")
        self.publications = Publications(self.clock)
        self.workers = Workers(FLEET, self.clock, self.roots)
        self.engines = {host: SimEngine(host, self.clock, self.images, self.workers.admits) for host in hosts}
        self.placement: dict[str, tuple[str, ...]] = dict.fromkeys(hosts, ALL_SERVICES)
        self.cut: set[str] = set()
        self.memory = "64M"
        self.drain = 0.0
        self.blind = False  # whether rollouts go on without their lease, as while the controller is suspended
        self.order = "stop-first"
        self.published: Optional[bytes] = None
        self.source = Release("a")
        self.numbers = 0
        self.went_wrong = False
        self._under: list[Under] = []
        self._watching = False
        self.clock.moved = self.happen
        self.modules = Modules(self)
        for host in hosts:
            self._listen(host)

    def _listen(self, host: str) -> None:
        self.engines[host].after_stop = self.workers.left
        self.engines[host].before_call = lambda what: self._engine_call(host, what)

    # runs

    @property
    def hosts(self) -> tuple[str, ...]:
        """The inventory's hosts."""
        return tuple(self.placement)

    def inventory(self) -> Inventory:
        """The inventory as it is now."""
        services = {name: {**spec, "memory": self.memory, "order": self.order} for name, spec in SERVICES.items()}
        common = {
            "worker_fleet": FLEET, "worker_fleet_services": services, "worker_service_defaults": DEFAULTS,
            "worker_redis_url": "redis://redis.test:6379/0", "worker_image_push": True,
            "worker_source": {"path": "/source"},
            "worker_image_repository": "registry.test/demo-worker",
            "worker_image_base": "base@sha256:" + "b" * 64, "worker_stabilize": 15, "worker_wait_timeout": 40,
            "worker_evidence_directory": str(self.directory / "evidence")}
        return Inventory({
            host: {**common, "worker_root": str(self.roots[host]), "worker_placement": list(placed)}
            for host, placed in self.placement.items()})

    def run(
        self, release: Optional[Release] = None, *, check_mode: bool = False, limit: Optional[tuple[str, ...]] = None,
        chance: Optional[Chance] = None, faults: tuple[Fault, ...] = (), others: tuple[Callable[[], None], ...] = (),
        playbook: str = "deploy", **extra: Any,
    ) -> Optional[Ending]:
        """Run a playbook; None when the run was killed.

        :param release: what the checkout is on.
        :param others: what happens at the faults of kind ``other``, one after the other.
        """
        before, self.source = self.source, release or self.source
        self.numbers += 1
        run = Run(
            self, self.inventory(), extra, check_mode, limit, chance or Chance(),
            name=f"{playbook} {self.source.name}{' check' if check_mode else ''} #{self.numbers}")
        run.source = self.source  # type: ignore[attr-defined]
        begun = int(self.redis.get(f"{FLEET}:generation") or 0)
        self._under.append(Under(self, sorted(faults, key=lambda fault: fault.at), list(others), begun))
        self.went_wrong = True
        try:
            ending = run.playbook(plays(PROJECT / "playbooks" / f"{playbook}_workers.yml"))
            self.went_wrong = ending.status != 0
            return ending
        except Killed:
            return None
        finally:
            self._under.pop()
            self.source = before if self._under else self.source

    # what the interpreter asks

    def step(self, run: Run, host: str, task: Task) -> None:
        self.clock.move(STEP_SECONDS / len(self.placement))
        self._under[-1].step(run.steps, host, task.name)

    def reaches(self, run: Run, host: str) -> bool:
        return host not in self.cut

    def module(self, run: Run, host: str, name: str, arguments: dict[str, Any], check_mode: bool) -> dict[str, Any]:
        return self.modules.run(run, host, name, arguments, check_mode)

    def functions(self) -> Mapping[str, Any]:
        return self.modules.functions

    # time, engines, Redis

    def happen(self) -> None:
        """What happened by itself by now: containers end and restart, workers beat and start jobs."""
        containers = []
        for engine in self.engines.values():
            engine.settle()
            containers += list(engine.containers.values())
        self.workers.live(containers, self.published, self.deaf)

    @property
    def under(self) -> Optional[Under]:
        """The run under way, the innermost one."""
        return self._under[-1] if self._under else None

    def go_on(self) -> None:
        """A safe point of a rollout.

        :raises DriftguardError: the run was interrupted.
        """
        if self.under:
            self.under.go_on()

    def _engine_call(self, host: str, what: str) -> None:
        if self.under:
            self.under.engine_call(host, what)

    def redis_call(self) -> None:
        """Called before each of the deployer's commands.

        :raises DriftguardError: it is away.
        """
        self.lease.pass_by()
        if self.under:
            self.under.redis_call()

    @property
    def deaf(self) -> set[str]:
        """The hosts whose workers don't reach Redis now."""
        return {one.host for one in self.publications.silences if one.begin <= self.clock.now < one.end}

    def silence(self, host: str, seconds: float) -> bool:
        """Workers of a host (empty: of all) don't reach Redis for some time; whether there are any."""
        now = self.clock.now
        struck = [one for one in self.engines if host in ("", one)]
        self.publications.silences += [Silence(one, now, now + seconds) for one in struck]
        return any(self.engines[one].containers for one in struck)

    def redis_answered(self, script: str, arguments: Sequence[Any], answer: Any) -> None:
        """A script of the collection ran in Redis: workers that ask from now on see what it did."""
        self.lease.asked(script, arguments, answer)
        if self.publications.asked(script, arguments, answer):
            self.published = self.redis.get(f"{FLEET}:release")

    def empty_redis(self) -> None:
        """Redis loses everything."""
        self.redis.flushall()
        self.published = None
        self.publications.note(None)
        self.workers.lost()

    def write_registrations(self) -> None:
        """Make what workers registered what Redis holds."""
        pipe = self.redis.pipeline(transaction=False)
        index = f"{FLEET}:workers"
        there = {member.decode() for member in self.redis.zrange(index, 0, -1)}
        for member in there - set(self.workers.known):
            pipe.zrem(index, member)
            pipe.delete(f"{FLEET}:worker:{member}:version")
        for member, registration in self.workers.known.items():
            if not registration.written or member not in there:
                key = f"{FLEET}:worker:{member}:version"
                pipe.hset(key, mapping=registration.fields)
                pipe.pexpire(key, 3_600_000)
                pipe.zadd(index, {member: 1.0})
                registration.written = True
        pipe.execute()

    # what an operator does between runs

    def repair(self) -> None:
        """All hosts are back, all engines run, leases have run out."""
        self.cut.clear()
        for engine in self.engines.values():
            if engine.dead:
                engine.revive()
        self.publications.all_hear()
        self.clock.move(max(1000.0, self.lease.left))

    def add_host(self, host: str) -> None:
        """A host joins the inventory."""
        if host not in self.engines:
            self.roots[host] = self.directory / host
            self.engines[host] = SimEngine(host, self.clock, self.images, self.workers.admits)
            self._listen(host)
        self.placement[host] = ALL_SERVICES

    def remove_host(self, host: str) -> None:
        """A host leaves the inventory, and somebody takes its containers away."""
        del self.placement[host]
        self.engines[host].containers.clear()

    # what there is to see

    def running(self, host: str) -> list[str]:
        """Releases of the containers on a host, running or about to; sorted."""
        return sorted(one.image.release_id for one in self.engines[host].containers.values())

    def record(self) -> Optional[dict[str, Any]]:
        """The fleet's record."""
        text = self.redis.get(f"{FLEET}:release")
        return json.loads(text) if text else None

    def picture(self) -> dict[str, Any]:
        """Everything that a check-mode run must leave as it is."""
        files = {
            str(path.relative_to(self.directory)): path.read_bytes() if path.is_file() else path.is_symlink()
            for path in self.directory.rglob("*") if not {"evidence", "lock", "lock.fence"} & set(path.parts)}
        keys = {
            key: self.redis.dump(key) for key in self.redis.keys("*")
            if not any(part in key for part in (b":audit", b":worker", b":lock"))}
        # What crashes goes from one to the other by itself.
        alive = {"restarting": "running"}
        containers = {
            host: sorted((one.id, alive.get(one.status, one.status), one.name) for one in engine.containers.values())
            for host, engine in self.engines.items()}
        return {"files": files, "keys": keys, "containers": containers}


def bad(name: str, **badness: Any) -> Release:
    """A release that is bad."""
    return replace(Release(name), badness=Badness(**badness))
