# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker in TypeScript from an unedited Dockerfile: deployed, verified, made stale, fenced, rolled back."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, Iterator
from uuid import uuid4

import pytest
from support.fleet import PROJECT, Fleet, FleetRedis, some_fleet, wait_for
from support.modules import run_module
from support.node_worker import node_modules, produce  # noqa: F401 - a fixture

APP = PROJECT / "tests" / "apps" / "node_app"
AUTHORITIES = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
HEALTH = "fetch('http://127.0.0.1:8081/health').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"
SERVICES: dict[str, Any] = {"counter": {
    "guard": "node", "memory": "160M", "drain_time": "2s", "stop_grace_period": "6s",
    "healthcheck": {"test": ["node", "-e", HEALTH], "interval": "2s", "timeout": "5s", "retries": 3}}}
LONG = 560.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str) -> Iterator[Fleet]:
    with some_fleet(tmp_path_factory.mktemp("node-app"), fleet_redis, base_reference, SERVICES) as made:
        shutil.rmtree(made.repository)
        shutil.copytree(APP, made.repository, ignore=shutil.ignore_patterns("node_modules", "dist"))
        made.git("init", "-q", "-b", "main")
        made.variables["worker_image_secrets"] = [{"id": "ca", "src": str(AUTHORITIES)}] if AUTHORITIES.exists() else []
        made.variables["worker_image_variants"] = {"base": {"must_not_contain": ["npm"]}}
        commit(made)
        yield made


def commit(fleet: Fleet) -> str:
    """A new version of the code; its full SHA."""
    source = fleet.repository / "src" / "work.ts"
    source.write_text(source.read_text(encoding="utf-8") + f"// {uuid4().hex}\n", encoding="utf-8")
    fleet.git("add", "-A")
    fleet.git("commit", "-q", "-m", "another version")
    return fleet.git("rev-parse", "HEAD")


def key(fleet: Fleet) -> str:
    """The registration of its only instance."""
    container = fleet.containers(service="counter")[0]
    return f"{fleet.name}:worker:counter:{container.id[:12]}:version"


def publish(fleet: Fleet, record: dict[str, Any]) -> None:
    """Let other releases run in the fleet, as a deployment from elsewhere would."""
    number = int(fleet.redis.client.get(f"{fleet.name}:generation") or 0) + 1
    run_module(
        "worker_release", fleet=fleet.name, state="settled", target=record, generation=number,
        redis_url=fleet.redis.control_url, redis_password=fleet.redis.password).must_pass()


def add_jobs(fleet: Fleet, modules: Path, count: int) -> None:
    url = fleet.redis.control_url.replace("://", f"://:{fleet.redis.password}@")
    produce(modules, url, fleet.name, "counter", count)


def results(fleet: Fleet) -> dict[str, str]:
    """What its jobs came to."""
    return dict(fleet.redis.client.hgetall(f"{fleet.name}:results"))


def test_deployed_made_stale_fenced_and_rolled_back(fleet: Fleet, node_modules: Path) -> None:  # noqa: F811
    redis = fleet.redis.client
    sha = fleet.git("rev-parse", "HEAD")
    fleet.play("deploy-workers.yml", timeout=LONG).must_pass()
    fleet.verify().must_pass()
    container = fleet.containers()[0]
    assert container.attrs["Config"]["Cmd"] == [
        "node", "--require", "/opt/driftguard/guard/version-guard.cjs", "dist/worker.js"]
    assert redis.hget(key(fleet), "state") == "running"
    _, listing = container.exec_run(["sh", "-c", "ls; ls node_modules"])
    assert {"dist", "bullmq"} <= set(listing.decode().split())
    assert not {"src", "typescript", "tsx"} & set(listing.decode().split())
    add_jobs(fleet, node_modules, 2)
    wait_for(lambda: len(results(fleet)) == 2, "two jobs")
    assert results(fleet)["job-0"] == f"0 by {sha}"

    own = json.loads(redis.get(f"{fleet.name}:release"))["target"]
    publish(fleet, {"release_id": "f" * 12 + ".0123456789ab", "sha": "f" * 40})
    wait_for(lambda: redis.hget(key(fleet), "state") == "fenced", "the fence", 5)
    redis.delete(f"{fleet.name}:results", *redis.keys(f"{fleet.name}:counter:job-*"))
    add_jobs(fleet, node_modules, 2)
    wait_for(lambda: _health(fleet) == "unhealthy", "the engine to see it")
    assert results(fleet) == {}
    assert fleet.verify().must_fail().status

    # The engine starts it anew: its host's record allows it, the fleet's doesn't.
    container.restart(timeout=6)
    wait_for(lambda: redis.hget(key(fleet), "state") == "fenced", "the fence after a restart")
    container.reload()
    assert container.status == "running"
    assert results(fleet) == {}
    assert "node-app at work" not in container.logs(since=_started(fleet)).decode()

    publish(fleet, {"release_id": own["releaseId"], "sha": own["sha"]})
    wait_for(lambda: len(results(fleet)) == 2, "the jobs that waited")
    wait_for(lambda: _health(fleet) == "healthy", "the engine to see it")
    fleet.verify().must_pass()


def _health(fleet: Fleet) -> str:
    container = fleet.containers()[0]
    return str(container.attrs["State"]["Health"]["Status"])


def _started(fleet: Fleet) -> float:
    text = fleet.containers()[0].attrs["State"]["StartedAt"]
    return datetime.fromisoformat(f"{text[:23]}+00:00").timestamp()


def test_another_commit_is_deployed_and_rolled_back(fleet: Fleet, node_modules: Path) -> None:  # noqa: F811
    before = fleet.git("rev-parse", "HEAD")
    after = commit(fleet)
    fleet.play("deploy-workers.yml", timeout=LONG).must_pass()
    fleet.redis.client.delete(f"{fleet.name}:results", *fleet.redis.client.keys(f"{fleet.name}:counter:job-*"))
    add_jobs(fleet, node_modules, 1)
    wait_for(lambda: results(fleet) == {"job-0": f"0 by {after}"}, "a job of the new commit")
    fleet.play("rollback-workers.yml", timeout=LONG).must_pass()
    fleet.redis.client.delete(f"{fleet.name}:results", *fleet.redis.client.keys(f"{fleet.name}:counter:job-*"))
    add_jobs(fleet, node_modules, 1)
    wait_for(lambda: results(fleet) == {"job-0": f"0 by {before}"}, "a job of the old commit")


def test_typescript_by_tsx_is_refused(fleet: Fleet) -> None:
    fleet.variables["worker_fleet_services"]["counter"]["command"] = ["node", "--import", "tsx", "src/worker.ts"]
    fleet.play("deploy-workers.yml", timeout=LONG).must_fail("service counter, key command", "tsx in key command")
    assert len(fleet.containers()) == 1
