# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of its own for a test: a repository with the probe worker, an inventory, real playbooks, engine and Redis."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator
from uuid import uuid4

import docker
import pytest
import redis as redis_py
import yaml
from support.bridge import bridge_address
from support.modules import PROJECT, ModuleRun, run_module

from .evidence_schema import checked
from .redis_server import BUSY

__all__ = ["PROJECT", "Fleet", "Run", "base_reference", "fleet", "fleet_redis", "module_fleet", "some_fleet", "whole"]

PROBE = PROJECT / "tests" / "apps" / "probe"
TEST_LABEL = "io.driftguard.test"
SETTINGS: dict[str, Any] = {
    "worker_stabilize": 2,
    "worker_wait_timeout": 90,
    "worker_registration_timeout": 20,
}
SERVICES: dict[str, Any] = {"alpha": None, "beta": {"replicas": 2}}
DEFAULTS: dict[str, Any] = {
    "memory": "64M",
    "stop_grace_period": "3s",
    "drain_time": "1s",
    "healthcheck": {"test": ["test", "-f", "/tmp/ready"], "interval": "30s", "timeout": "10s", "retries": 3},
}


@dataclass(frozen=True)
class Run:
    """What a playbook run left: exit status, output, and the numbers of its recap."""

    status: int
    output: str
    recap: dict[str, int] = field(default_factory=dict)

    def must_pass(self) -> Run:
        """The run itself, which must have succeeded."""
        assert self.status == 0, self.output
        return self

    def must_fail(self, *said: str) -> Run:
        """The run itself, which must have failed and said why."""
        assert self.status != 0, self.output
        for text in said:
            assert text in self.output, f"{text!r} isn't in:\n{self.output}"
        assert "Traceback" not in self.output, self.output
        return self

    @property
    def changed(self) -> int:
        """Changed tasks."""
        return self.recap.get("changed", -1)


class FleetRedis:
    """A Redis that containers reach through the bridge and this process through loopback; with an ACL file if asked."""

    def __init__(self, directory: Path, gateway: str, keeps_users: bool = False) -> None:
        self._keeps_users = keeps_users
        self.password = f"fleet-{uuid4().hex}"
        self.port = _free_port()
        self.workers_url = f"redis://{gateway}:{self.port}/0"
        self.control_url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        config = self._directory / "redis.conf"
        config.write_text(
            f"bind 0.0.0.0\nport {self.port}\nrequirepass {self.password}\nmaxmemory-policy noeviction\n"
            f"appendonly yes\ndir {self._directory}\n" + ("aclfile users.acl\n" if self._keeps_users else "")
        )
        if self._keeps_users and not (users := self._directory / "users.acl").exists():
            users.write_text(f"user default on >{self.password} ~* &* +@all\n")
        self._process = subprocess.Popen(
            ["redis-server", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self._answers, "redis-server to answer")

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Stop it hard."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def client(self) -> Any:
        """A client of it."""
        return redis_py.Redis(host="127.0.0.1", port=self.port, password=self.password, decode_responses=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis_py.RedisError:
            return False


class Fleet:
    """One fleet under test.

    :param application: the directory that becomes its repository.
    """

    def __init__(
        self,
        directory: Path,
        redis: FleetRedis,
        base: str,
        services: dict[str, Any] | None = None,
        application: Path = PROBE,
    ) -> None:
        self.name = f"t{uuid4().hex[:8]}"
        self.group = "workers"
        self.redis = redis
        self.directory = directory
        self.root = directory / "root"
        self.repository = directory / "app"
        self.engine = docker.from_env()
        self.variables: dict[str, Any] = {
            "worker_fleet": self.name,
            "worker_fleet_services": copy.deepcopy(services or SERVICES),
            "worker_service_defaults": copy.deepcopy(DEFAULTS),
            "worker_root": str(self.root),
            "worker_redis_url": redis.workers_url,
            "worker_redis_control_url": redis.control_url,
            "worker_redis_password": redis.password,
            "worker_image_base": base,
            "worker_image_push": False,
            "worker_image_variants": {"base": {}},
            "worker_source": {
                "path": str(self.repository),
                "revision": "HEAD",
                "context": ".",
                "dockerfile": "Dockerfile",
            },
            "worker_evidence_directory": str(directory / "evidence"),
            **SETTINGS,
        }
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copytree(application, self.repository)
        self.git("init", "-q", "-b", "main")
        self.commit()

    @property
    def project(self) -> str:
        """Its compose project."""
        return f"{self.name}-workers"

    def git(self, *arguments: str) -> str:
        """Run git in the application's repository."""
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.repository, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, **behaviour: Any) -> str:
        """Commit a new version that behaves so; its full SHA."""
        (self.repository / "behaviour.json").write_text(json.dumps({**behaviour, "nonce": uuid4().hex}))
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"behave {behaviour}")
        return self.git("rev-parse", "HEAD")

    def inventory(self, hosts: tuple[str, ...] = ("here",)) -> Path:
        """Write the inventory; its path."""
        path = self.directory / "inventory.yml"
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        workers = {"hosts": dict.fromkeys(hosts, local), "vars": self.variables}
        path.write_text(yaml.safe_dump({"all": {"children": {self.group: workers}}}))
        return path

    def start(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a playbook and leave it running, its output in a file."""
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp"),
        }
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            str(PROJECT / "playbooks" / playbook),
            "-i",
            str(self.inventory()),
            *arguments,
        ]
        self.log = self.directory / f"{uuid4().hex[:6]}.log"
        with self.log.open("w") as log:
            return subprocess.Popen(
                command,
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def play(self, playbook: str, *arguments: str, timeout: float = 1200) -> Run:
        """Run a playbook to its end."""
        process = self.start(playbook, *arguments)
        status = process.wait(timeout=timeout)
        output = self.log.read_text()
        return Run(status, output, _recap(output))

    def deploy(self, *arguments: str) -> Run:
        """Deploy HEAD."""
        return self.play("deploy-workers.yml", *arguments)

    def verify(self, *arguments: str) -> Run:
        """Verify; a passing problem is given little time."""
        return self.play("verify-workers.yml", "-e", "worker_registration_timeout=3", *arguments)

    def prove(self, timeout: float = 3.0, **options: Any) -> ModuleRun:
        """What a verify run does on the host, without the playbook around it."""
        return run_module(
            "worker_version_assert",
            fleet=self.name,
            root=str(self.root),
            host="here",
            services=self.variables["worker_fleet_services"],
            defaults=self.variables["worker_service_defaults"],
            timeout=timeout,
            redis_url=self.redis.control_url,
            redis_password=self.redis.password,
            **{"hosts": ["here"], **options},
        )

    def heal(self, **options: Any) -> ModuleRun:
        """What a deploy of the same revision does on the host, without the playbook around it."""
        seen = int((self.root / self.name / "state" / "fence").read_text().split()[0])
        return run_module(
            "worker_rollout",
            fleet=self.name,
            root=str(self.root),
            host="here",
            generation=seen + 1,
            **{"stabilize": 1.0, "wait_timeout": 90.0, **options},
        ).must_pass()

    def containers(self, **labels: str) -> list[Any]:
        """All containers of its project, running or not, by name."""
        own: dict[str, Any] = {"label": [f"com.docker.compose.project={self.project}"]}
        found = self.engine.containers.list(all=True, ignore_removed=True, filters=own)
        wanted = [
            c for c in found if all(c.labels.get(f"com.docker.compose.{key}") == value for key, value in labels.items())
        ]
        return sorted(wanted, key=lambda container: container.name)

    def shas(self) -> set[str]:
        """The commits that the images of its containers are stamped with."""
        return {container.image.labels["org.opencontainers.image.revision"] for container in self.containers()}

    def ids(self) -> dict[str, str]:
        """Container name to id."""
        return {container.name: container.id for container in self.containers()}

    def evidence(self) -> list[dict[str, Any]]:
        """All records of evidence, oldest first, each as its schema says."""
        files = sorted(
            (self.directory / "evidence" / self.name).glob("*.json"), key=lambda path: path.stat().st_mtime_ns
        )
        return [checked(json.loads(path.read_text())) for path in files]

    def close(self) -> None:
        """Remove everything it made."""
        for container in self.engine.containers.list(all=True, ignore_removed=True):
            image = container.attrs.get("Config", {}).get("Image", "")
            project = container.labels.get("com.docker.compose.project", "")
            if container.labels.get("io.driftguard.fleet") == self.name or self.name in image or self.name in project:
                container.remove(force=True, v=True)
        for network in self.engine.networks.list(filters={"label": f"com.docker.compose.project={self.project}"}):
            network.remove()
        for image in self.engine.images.list(filters={"label": f"io.driftguard.fleet={self.name}"}):
            self.engine.images.remove(str(image.id), force=True)
        self.engine.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_for(condition: Any, what: str, seconds: float = 20.0) -> Any:
    """Ask until the answer is true; fail with what was awaited, when a machine with nothing to do would be late."""
    end = time.monotonic() + seconds * BUSY
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"still waiting after {seconds * BUSY:g} s for {what}"
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _recap(output: str) -> dict[str, int]:
    totals: dict[str, int] = {}
    _, _, recap = output.rpartition("PLAY RECAP")
    for name, number in re.findall(r"(\w+)=(\d+)", recap):
        totals[name] = totals.get(name, 0) + int(number)
    return totals


@pytest.fixture(scope="session")
def base_reference() -> str:
    """The bootstrapped base, by the tag that is its own id."""
    engine = docker.from_env()
    for image in engine.images.list(name="driftguard.local/base"):
        for tag in image.tags:
            if tag == f"driftguard.local/base:{str(image.id).partition(':')[2]}":
                return str(tag)
    pytest.fail("no driftguard.local/base image: run make setup (playbooks/bootstrap.yml) first")


@pytest.fixture(scope="session")
def fleet_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetRedis]:
    """One Redis for all fleets of a test session; each fleet has its own prefix."""
    redis = FleetRedis(tmp_path_factory.mktemp("redis"), bridge_address())
    yield redis
    redis.stop()


@contextmanager
def some_fleet(
    directory: Path,
    redis: FleetRedis,
    base: str,
    services: dict[str, Any] | None = None,
    application: Path = PROBE,
) -> Iterator[Fleet]:
    """A fleet that is gone, with everything it made, in the end."""
    made = Fleet(directory / "fleet", redis, base, services, application)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def fleet(tmp_path: Path, fleet_redis: FleetRedis, base_reference: str) -> Iterator[Fleet]:
    """A fleet for one test."""
    with some_fleet(tmp_path, fleet_redis, base_reference) as made:
        yield made


@pytest.fixture(scope="module")
def module_fleet(
    tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str
) -> Iterator[Fleet]:
    """A fleet for all tests of a file."""
    with some_fleet(tmp_path_factory.mktemp("module"), fleet_redis, base_reference) as made:
        yield made


@pytest.fixture
def whole(module_fleet: Fleet) -> Fleet:
    """The module's fleet, which runs its repository's HEAD; each test leaves it on one commit, whichever."""
    if module_fleet.containers():
        module_fleet.git("checkout", "-q", *module_fleet.shas())
    else:
        module_fleet.deploy().must_pass()
    return module_fleet
