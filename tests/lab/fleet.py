# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet on the hosts of a lab, and what the hosts themselves say of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence, TypeVar

import redis as redis_py
import yaml
from support.fleet import PROBE, PROJECT, Fleet, FleetRedis, Run

from .faults import FAULTS, Asked
from .machines import CA_FILE, USER
from .outer import Outer
from .reach import connect
from .state import Lab

__all__ = ["LabFleet"]

#: How each service is on some of the hosts only.
PLACEMENT = {"host1": ["alpha"], "host2": ["alpha", "beta"], "host3": ["beta"]}
SERVICES: dict[str, Any] = {"alpha": None, "beta": {"replicas": 2}}
PATIENCE = 1200.0
# What an engine says of itself while nobody does anything: the looks of health checks.
QUIET = ("exec_", "health_status")
LOOK = (
    "ids=$(docker ps -aq --no-trunc --filter label=io.driftguard.fleet={0}); [ -z \"$ids\" ] || docker inspect $ids; "
    "echo ----; [ -z \"$ids\" ] || docker image inspect $(docker inspect --format '{{{{.Image}}}}' $ids | sort -u)")
STATE = (
    "docker image ls --all --no-trunc --quiet; docker network ls --quiet; docker volume ls --quiet; "
    "find /opt/driftguard/{0} -printf '%p %i %s %T@\\n' 2>/dev/null | sort")
REMOVE = (
    "docker ps -aq --filter label=io.driftguard.fleet={0} | xargs -r docker rm -fv; "
    "docker network ls -q --filter label=com.docker.compose.project={0}-workers | xargs -r docker network rm; "
    "docker image ls -q --filter label=io.driftguard.fleet={0} | sort -u | xargs -r docker image rm -f; "
    "rm -rf /opt/driftguard/{0}")
T = TypeVar("T")


class LabRedis(FleetRedis):
    """The Redis of a lab, which every fleet of its tests shares."""

    def __init__(self, lab: Lab) -> None:  # it runs already
        self._lab = lab
        self.password = lab.secret("redis-workers")
        self.workers_url = self.control_url = lab.redis_url

    @property
    def client(self) -> Any:
        """A client of it."""
        return redis_py.Redis(
            host=f"{self._lab.subnet}.2", ssl=True, ssl_ca_certs=str(self._lab.directory / "ca.crt"),
            username="workers", password=self.password, decode_responses=True)


class LabFleet(Fleet):
    """One fleet under test, on several hosts.

    :param placement: the services of each of its hosts; it decides which hosts the inventory has, too.
    :param base: what its image is built from, where it isn't the lab's base.
    """

    def __init__(
        self, lab: Lab, directory: Path, placement: Mapping[str, Sequence[str]] | None = None, *, base: str = "",
        services: dict[str, Any] | None = None, application: Path = PROBE,
    ) -> None:
        super().__init__(directory, LabRedis(lab), base or lab.base, services or SERVICES, application)
        self.lab = lab
        self.outer = Outer()
        self.placement = {host: list(services) for host, services in (placement or PLACEMENT).items()}
        self.root = Path("/opt/driftguard")
        self._sockets = tempfile.mkdtemp(prefix="dg-")  # a run's own, and short
        for name in ("worker_root", "worker_redis_control_url"):
            self.variables.pop(name)
        self.variables["worker_service_defaults"].update(
            environment={"REDIS_CA_FILE": "/run/secrets/lab_ca"}, secrets=["lab_ca"])
        self.variables.update(
            worker_batches=["1", "100%"],
            worker_image_push=True, worker_image_repository=f"{lab.registry}/{self.name}-worker",
            worker_registry_username=USER, worker_registry_password=lab.secret("registry-password"),
            worker_redis_ca_file=CA_FILE, worker_secrets={"lab_ca": (lab.directory / "ca.crt").read_text()})

    def inventory(self, hosts: tuple[str, ...] = ()) -> Path:
        """Write the inventory: how the lab's own reaches its hosts, and this fleet's variables."""
        place = {**os.environ, "DRIFTGUARD_LAB": self.lab.name, "ANSIBLE_SSH_CONTROL_PATH_DIR": self._sockets}
        said = subprocess.run(
            [sys.executable, str(PROJECT / "inventories" / "lab" / "hosts.py")], env=place, check=True,
            capture_output=True, text=True)
        facts = json.loads(said.stdout)
        chosen = {
            host: {**facts["_meta"]["hostvars"][host], "worker_placement": services}
            for host, services in self.placement.items() if host in (hosts or tuple(self.placement))}
        path = self.directory / "inventory.yml"
        workers = {"hosts": chosen, "vars": {**facts["workers"]["vars"], **self.variables}}
        path.write_text(yaml.safe_dump({"all": {"children": {self.group: workers}}}))
        return path

    def play(self, playbook: str, *arguments: str, timeout: float = PATIENCE) -> Run:
        """Run a playbook to its end; three hosts on a busy machine take their time."""
        return super().play(playbook, *arguments, timeout=timeout)

    def fault(self, name: str, host: str = "", **more: Any) -> str:
        """Make or undo a fault, as the command line does."""
        return FAULTS[name].does(self.outer, self.lab, Asked(host=host, **more))

    def disconnect(self) -> None:
        """End the connections that Ansible left open: the next run makes its own, as the hosts' SSH is then."""
        for socket in Path(self._sockets).iterdir():
            subprocess.run(
                ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "any"], stdin=subprocess.DEVNULL,
                capture_output=True, check=False)

    def on(self, host: str, *command: str) -> str:
        """What a command says on a host, as root, over SSH; it must succeed."""
        done = connect(self.lab, self.lab.host(host), "sudo", *command)
        assert done.returncode == 0, f"{host}: {' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def there(self, host: str) -> list[dict[str, Any]]:
        """All containers of the fleet on a host, running or not, as its engine describes them, each with its image.

        :returns: what ``docker inspect`` says, by name of the container; ``OnHost`` is what it says of the image.
        """
        said = self.on(host, "sh", "-c", LOOK.format(self.name)).split("----")
        containers, images = (json.loads(part.strip() or "[]") for part in said)
        by_id = {image["Id"]: image for image in images}
        found = [{**container, "OnHost": by_id[container["Image"]]} for container in containers]
        return sorted(found, key=lambda container: str(container["Name"]))

    def runs(self, host: str) -> dict[str, list[str]]:
        """Services of a host and, for each running container, the commit that its image is stamped with there."""
        found: dict[str, list[str]] = {}
        for container in self.there(host):
            assert container["State"]["Running"], container["Name"]
            sha = container["OnHost"]["Config"]["Labels"]["org.opencontainers.image.revision"]
            assert f"GIT_SHA={sha}" in container["Config"]["Env"]
            found.setdefault(container["Config"]["Labels"]["io.driftguard.service"], []).append(sha)
        return found

    def _each(self, ask: Callable[[str], T]) -> dict[str, T]:
        """What every host of the lab answers, whether or not the inventory has it."""
        with ThreadPoolExecutor(len(self.lab.hosts)) as pool:
            return dict(zip(self.lab.hosts, pool.map(ask, self.lab.hosts), strict=True))

    def everywhere(self) -> dict[str, dict[str, list[str]]]:
        """:meth:`runs` of every host of the lab, whether or not the inventory has it."""
        return self._each(self.runs)

    def wanted(self, sha: str) -> dict[str, dict[str, list[str]]]:
        """What :meth:`everywhere` says when the whole fleet runs a commit."""
        one = {"alpha": [sha], "beta": [sha, sha]}
        return {host: {name: one[name] for name in self.placement.get(host, [])} for host in self.lab.hosts}

    def record(self) -> dict[str, Any]:
        """The fleet's record in Redis; empty where there is none."""
        return dict(json.loads(self.redis.client.get(f"{self.name}:release") or "{}"))

    def state(self) -> dict[str, Any]:
        """All that a check must leave as it is: containers, images, files of every host, and the fleet's record."""
        return {"record": self.record(), **self._each(self._state)}

    def _state(self, host: str) -> list[Any]:
        containers = [(one["Id"], one["State"]["StartedAt"], one["RestartCount"]) for one in self.there(host)]
        return [*containers, self.on(host, "sh", "-c", STATE.format(self.name))]

    def events(self, since: float, until: float) -> dict[str, list[str]]:
        """What happened on each host's engine between two times, without the looks of health checks."""
        times = (f"--since={since:.3f}", f"--until={until:.3f}")

        def ask(host: str) -> list[str]:
            said = self.on(host, "docker", "events", *times, "--format={{.Type}} {{.Action}} {{.Actor.ID}}")
            return [line for line in said.splitlines() if not line.split(" ")[1].startswith(QUIET)]

        return self._each(ask)

    def close(self) -> None:
        """Remove everything it made, on the hosts too."""

        def remove(host: str) -> int:
            return connect(self.lab, self.lab.host(host), "sudo", "sh", "-c", REMOVE.format(self.name)).returncode

        self._each(remove)
        shutil.rmtree(self._sockets, ignore_errors=True)
        super().close()
