# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other people's applications behind the supervisor: Celery with its prefork pool, and RQ with its work horse.

Each is deployed from its own unedited Dockerfile, verified, made stale, fenced and rolled back.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from support.fleet import PROJECT, Fleet, FleetRedis, some_fleet, wait_for
from support.modules import run_module

APPS = {"celery": ("celery_app", "jobs", 3), "rq": ("rq_app", "rq:queue:{}:jobs", 1)}
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
OTHER = {"release_id": "f" * 12 + "." + "0" * 12, "sha": "f" * 40}
STAYS_SECONDS = 3.0  # long enough for a worker that wrongly still listens: both take a job within a second


class App:
    """One application as a fleet.

    :param least: processes that it has when it works.
    """

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet = fleet
        self._directory, queue, self.least = APPS[name]
        self.queue = f"{fleet.name}:{queue}" if name == "celery" else queue.format(fleet.name)

    @property
    def container(self) -> Any:
        """Its only container."""
        [one] = self.fleet.containers()
        return one

    @property
    def state(self) -> str:
        """What it has registered."""
        [member] = self.fleet.redis.client.zrange(f"{self.fleet.name}:workers", 0, -1) or ["nobody"]
        return str(self.fleet.redis.client.hget(f"{self.fleet.name}:worker:{member}:version", "state"))

    @property
    def processes(self) -> list[str]:
        """Command lines in the container without init, supervisor and health checks, which begin as runc's own."""
        listed = self.container.top(ps_args="-eo pid,args")["Processes"]
        others = ("version_guard.py", "docker-init", "runc init")
        return [line[1] for line in listed if not any(other in line[1] for other in others)]

    def add(self, name: str, seconds: float = 0.0) -> None:
        """Add a job, as the application itself does it."""
        status, output = self.container.exec_run(["/venv/bin/python", "/app/add.py", name, str(seconds)])
        assert status == 0, output.decode()

    def marks(self, kind: str) -> list[str]:
        """Names of the jobs that have begun, or are done."""
        return list(self.fleet.redis.client.lrange(f"{self.fleet.name}:{kind}", 0, -1))

    def does(self, name: str) -> None:
        """Wait until a job is done."""
        wait_for(lambda: name in self.marks("done"), f"job {name}; the log:\n{self.container.logs().decode()[-3000:]}")

    def publish(self, target: dict[str, str]) -> None:
        """Settle the fleet's record, as a deploy does it that can't reach this host."""
        record = json.loads(self.fleet.redis.client.get(f"{self.fleet.name}:release"))
        run_module(
            "worker_release", fleet=self.fleet.name, root=str(self.fleet.root), scope="fleet", state="settled",
            target=target, generation=record["generation"] + 1, redis_url=self.fleet.redis.control_url,
            redis_password=self.fleet.redis.password).must_pass()

    def own(self) -> dict[str, str]:
        """The release that it runs."""
        labels = self.container.image.labels
        return {"release_id": labels["io.driftguard.release"], "sha": labels["org.opencontainers.image.revision"]}

    def becomes(self, state: str) -> float:
        """Wait until it has registered a state; seconds that it took."""
        begin = time.monotonic()
        wait_for(lambda: self.state == state, f"{state}; the log:\n{self.container.logs().decode()[-3000:]}")
        return time.monotonic() - begin


@pytest.fixture(scope="module", params=APPS)
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis,
    base_reference: str,
) -> Iterator[App]:
    place = tmp_path_factory.mktemp(request.param)
    source = PROJECT / "tests" / "apps" / APPS[request.param][0]
    services = {"mailer": {"guard": "supervise"}}
    with some_fleet(place, fleet_redis, base_reference, services, source) as fleet:
        fleet.variables["worker_service_defaults"] = {
            "memory": "256M", "stop_grace_period": "10s", "drain_time": "4s", "healthcheck": {"interval": "2s"}}
        if AUTHORITIES.exists():
            fleet.variables["worker_image_secrets"] = [{"id": "ca", "src": str(AUTHORITIES)}]
        fleet.deploy().must_pass()
        yield App(fleet, request.param)


@pytest.fixture
def app(deployed: App) -> Iterator[App]:
    """The application at work, as each test leaves it."""
    own = deployed.own()
    deployed.becomes("running")
    yield deployed
    deployed.publish(own)


def test_deployed_and_verified(app: App) -> None:
    app.fleet.verify().must_pass()
    config = app.container.attrs["Config"]
    assert config["Entrypoint"][-3:] == ["/opt/driftguard/guard/version_guard.py", "--supervise", "--"]
    assert config["Healthcheck"]["Test"][-1] == "--health"
    app.add("first")
    app.does("first")


def test_made_stale_fenced_and_rolled_back(app: App) -> None:
    own, container = app.own(), app.container.id
    wait_for(lambda: len(app.processes) >= app.least, str(app.processes))
    app.publish(OTHER)
    took = app.becomes("fenced")
    print(f"{app.fleet.variables['worker_source']['path']}: fenced after {took:.2f} s")
    assert app.processes == []
    app.add("while fenced")
    time.sleep(STAYS_SECONDS)
    assert ("while fenced" in app.marks("begun"), app.fleet.redis.client.llen(app.queue)) == (False, 1)
    verdicts = {row["verdict"] for row in app.fleet.prove(expected_sha=own["sha"], timeout=0)["rows"]}
    assert verdicts & {"FENCED", "UNHEALTHY"}, "its health check may have noticed first"
    wait_for(lambda: app.container.attrs["State"]["Health"]["Status"] == "unhealthy", "an unhealthy container")
    app.publish(own)
    app.becomes("running")
    app.does("while fenced")
    wait_for(lambda: app.container.attrs["State"]["Health"]["Status"] == "healthy", "a healthy container")
    assert app.container.id == container
    app.fleet.verify().must_pass()


def test_a_job_under_way_is_finished_within_the_drain_time(app: App) -> None:
    """The pool's processes aren't told to end; the worker is, and it waits for them."""
    own = app.own()
    app.add("under way", 2.0)
    wait_for(lambda: "under way" in app.marks("begun"), "the job to begin")
    app.publish(OTHER)
    app.becomes("fenced")
    assert app.marks("done").count("under way") == 1
    app.publish(own)
    app.becomes("running")
    app.add("next")
    app.does("next")
    assert app.marks("begun").count("under way") == 1


def test_a_job_that_outlives_the_drain_time_ends_with_its_worker(app: App) -> None:
    app.add("too long", 60.0)
    wait_for(lambda: "too long" in app.marks("begun"), "the job to begin")
    app.publish(OTHER)
    app.becomes("fenced")
    assert ("too long" in app.marks("done"), app.processes) == (False, [])


def test_restarted_by_its_engine_it_parks_again_without_a_job(app: App) -> None:
    own = app.own()
    app.publish(OTHER)
    app.becomes("fenced")
    app.add("before the restart")
    app.container.restart(timeout=5)
    app.becomes("fenced")
    assert app.processes == []
    time.sleep(STAYS_SECONDS)
    assert "before the restart" not in app.marks("begun")
    app.publish(own)
    app.does("before the restart")
