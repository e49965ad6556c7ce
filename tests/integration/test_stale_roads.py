# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every road on which old code can come to run or hide: the verify run must fail and name the instance."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest
from support.fleet import Fleet, FleetRedis, some_fleet, wait_for
from support.modules import PROJECT, ModuleRun

SERVICES: dict[str, Any] = {"alpha": None, "beta": {"replicas": 2}, "writable": {"read_only": False}}


class Deployed:
    """A fleet on its second release, with the first one's image still there."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.old_sha = fleet.git("rev-parse", "HEAD")
        fleet.deploy().must_pass()
        self.old_image = fleet.containers(service="alpha")[0].image.id
        self.sha = fleet.commit()
        fleet.deploy().must_pass()
        self.image = fleet.containers(service="alpha")[0].image.id
        assert self.image != self.old_image

    def one(self, service: str) -> Any:
        """The first container of a service."""
        return self.fleet.containers(service=service)[0]

    @contextmanager
    def another(self, template: Any, name: str, **changes: Any) -> Iterator[Any]:
        """A container like another one, but for some changes; removed in the end."""
        client = self.fleet.engine.api
        facts = client.inspect_container(template.id)
        config, host = facts["Config"], facts["HostConfig"]
        covered = {bind.split(":")[1] for bind in changes.get("binds", [])}
        labels = {
            key: value for key, value in {**config["Labels"], **changes.get("labels", {})}.items() if value is not None
        }
        created = client.create_container(
            changes.get("image", facts["Image"]),
            name=name,
            labels=labels,
            entrypoint=changes.get("entrypoint", config["Entrypoint"]),
            command=changes.get("command", config["Cmd"]),
            environment=[*config["Env"], *changes.get("environment", [])],
            volumes=changes.get("volumes", []),
            host_config=client.create_host_config(
                binds=[
                    f"{mount['Source']}:{mount['Destination']}:ro"
                    for mount in facts["Mounts"]
                    if mount["Type"] == "bind" and mount["Destination"] not in covered
                ]
                + changes.get("binds", []),
                read_only=host["ReadonlyRootfs"],
                restart_policy={"Name": "always"},
                mem_limit=host["Memory"],
                tmpfs=host["Tmpfs"],
                init=True,
                network_mode=host["NetworkMode"],
            ),
        )
        try:
            if changes.get("start", True):
                client.start(created["Id"])
            yield self.fleet.engine.containers.get(created["Id"])
        finally:
            client.remove_container(created["Id"], force=True, v=True)

    @contextmanager
    def instead_of(self, template: Any, **changes: Any) -> Iterator[Any]:
        """The same container changed, in the place of the right one, which comes back in the end."""
        name = template.name
        template.rename(f"{name}-aside")
        try:
            with self.another(template, name, **changes) as changed:
                template.remove(force=True)
                yield changed
        finally:
            # What a verify run calls wrong, a deploy mends.
            self.fleet.heal()

    def accepted(self) -> ModuleRun:
        """A verify run that passes, once the registrations of containers that earlier tests killed have expired."""
        return self.fleet.prove(timeout=30.0).must_pass()

    def refused(self, *said: str) -> None:
        """A verify run that fails and says these."""
        run = self.fleet.prove().must_fail()
        for text in said:
            assert text in run.output, f"{text!r} isn't in:\n{run.output}"


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, base_reference: str
) -> Iterator[Deployed]:
    """One fleet for all roads; each test leaves it as it found it."""
    with some_fleet(tmp_path_factory.mktemp("roads"), fleet_redis, base_reference, SERVICES) as fleet:
        made = Deployed(fleet)
        fleet.prove().must_pass()
        yield made


def unguarded(template: Any) -> dict[str, Any]:
    """Changes that start the program without the guard, as somebody who bypasses it would."""
    command = template.attrs["Config"]["Cmd"]
    return {"entrypoint": command[:1], "command": command[1:]}


def worker_pids(container: Any) -> list[int]:
    """Processes of a worker, by the host's ids."""
    return [int(row[1]) for row in container.top()["Processes"] if "worker.py" in row[-1]]


@contextmanager
def silenced(container: Any) -> Iterator[None]:
    """A worker that doesn't beat for a while, so that what is written over its registration stays."""
    pids = worker_pids(container)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_an_old_container_left_running(deployed: Deployed) -> None:
    template = deployed.one("alpha")
    name = f"{deployed.fleet.project}-alpha-9"
    with deployed.another(template, name, image=deployed.old_image, **unguarded(template)):
        deployed.refused(name, "[STALE]", "deploy again")
        # The same through the playbook, with the table that a person sees.
        deployed.fleet.verify().must_fail(
            name, "[STALE]", "remedy: deploy again", "Not every worker of the fleet is proved"
        )


def test_a_created_container_that_would_revive(deployed: Deployed) -> None:
    name = f"{deployed.fleet.project}-beta-7"
    with deployed.another(deployed.one("beta"), name, image=deployed.old_image, start=False):
        deployed.refused(name, "[STOPPED]", "it may revive", f"docker rm -f {name}")


def test_a_stopped_container_that_would_revive(deployed: Deployed) -> None:
    template = deployed.one("alpha")
    name = f"{deployed.fleet.project}-alpha-8"
    with deployed.another(template, name, image=deployed.old_image, **unguarded(template)) as container:
        container.stop(timeout=1)
        deployed.refused(name, "[STOPPED]", "it may revive")


def test_a_missing_replica(deployed: Deployed) -> None:
    deployed.one("beta").remove(force=True)
    deployed.refused("beta (2 of 2)", "[MISSING]")
    deployed.fleet.heal()


def test_an_old_image_under_another_project(deployed: Deployed) -> None:
    template, name = deployed.one("alpha"), f"{deployed.fleet.name}-forgotten"
    labels = {"com.docker.compose.project": "forgotten"}
    with deployed.another(template, name, image=deployed.old_image, labels=labels, **unguarded(template)):
        deployed.refused(name, "[EXTRA]", "project forgotten", deployed.old_sha[:7])


def test_an_unstamped_image_of_the_fleets_repository(deployed: Deployed) -> None:
    """From before the collection was used: no labels at all, only the repository tells whose it is."""
    fleet, name = deployed.fleet, f"{deployed.fleet.name}-before"
    tag = f"{fleet.name}-worker:before"
    base = fleet.variables["worker_image_base"]
    fleet.engine.images.get(base).tag(tag)
    container = fleet.engine.containers.run(tag, ["sleep", "600"], name=name, detach=True)
    try:
        deployed.refused(name, "[EXTRA]", "an unstamped image")
    finally:
        container.remove(force=True)
        fleet.engine.images.remove(tag)


def test_an_image_of_the_fleets_repository_that_lost_its_name(deployed: Deployed) -> None:
    """As above, and its tag names another image by now: only the container itself still says what it was started as."""
    fleet, name = deployed.fleet, f"{deployed.fleet.name}-nameless"
    tag = f"{fleet.name}-worker:latest"
    fleet.engine.images.get(fleet.variables["worker_image_base"]).tag(tag)
    container = fleet.engine.containers.run(tag, ["sleep", "600"], name=name, detach=True)
    try:
        fleet.engine.images.get(deployed.image).tag(tag)
        deployed.refused(name, "[EXTRA]", "an unstamped image")
        fleet.engine.images.remove(tag)
        deployed.refused(name, "[EXTRA]", "an unstamped image")
    finally:
        container.remove(force=True)


def test_a_worker_that_crashes_after_it_has_registered(deployed: Deployed) -> None:
    """It is running whenever one looks, and its registration outlives each crash."""
    container = deployed.one("alpha")
    for crashes in (1, 2):
        os.kill(max(worker_pids(container)), signal.SIGKILL)
        wait_for(lambda count=crashes: restarts(container) == count and worker_pids(container), "another restart")
    deployed.refused(container.name, "[CRASHING]", "restarted 2 times, last time ")
    # The planner leaves it be: it is the release's, and nothing is better for a new container.
    deployed.fleet.heal()
    assert deployed.one("alpha").id == container.id
    container.remove(force=True)
    deployed.fleet.heal()


def restarts(container: Any) -> int:
    """How often the engine restarted a container that runs now, -1 for one that doesn't."""
    container.reload()
    return int(container.attrs["RestartCount"]) if container.status == "running" else -1


def test_git_sha_overridden(deployed: Deployed) -> None:
    template = deployed.one("alpha")
    with deployed.instead_of(template, environment=[f"GIT_SHA={'a' * 40}"], **unguarded(template)):
        deployed.refused(template.name, "[OVERRIDDEN]", "GIT_SHA was set at deploy time")


def test_git_sha_overridden_to_hide_an_old_image(deployed: Deployed) -> None:
    template = deployed.one("alpha")
    with deployed.instead_of(
        template, image=deployed.old_image, environment=[f"GIT_SHA={deployed.sha}"], **unguarded(template)
    ):
        deployed.refused(template.name, "[STALE]")


def test_a_registration_that_lies(deployed: Deployed) -> None:
    """The right SHA and release in Redis, from a container of the old image."""
    redis = deployed.fleet.redis.client
    template = deployed.one("alpha")
    prefix = deployed.fleet.name
    with deployed.instead_of(
        template, image=deployed.old_image, environment=[f"GIT_SHA={deployed.sha}"], **unguarded(template)
    ) as liar:
        right = redis.hgetall(f"{prefix}:worker:beta:{deployed.one('beta').id[:12]}:version")
        redis.hset(
            f"{prefix}:worker:alpha:{liar.id[:12]}:version",
            mapping={**right, "service": "alpha", "containerId": liar.id},
        )
        deployed.refused(liar.name, "[STALE]", "runs image")


def test_a_process_that_registered_another_sha(deployed: Deployed) -> None:
    redis, container = deployed.fleet.redis.client, deployed.one("alpha")
    key = f"{deployed.fleet.name}:worker:alpha:{container.id[:12]}:version"
    with silenced(container):
        right = redis.hget(key, "gitSha")
        redis.hset(key, "gitSha", deployed.old_sha)
        deployed.refused(container.name, "[STALE]", deployed.old_sha[:7])
        redis.hset(key, "gitSha", right)


@pytest.mark.parametrize("lifetime", [None, 600])
def test_a_record_whose_container_is_dead(deployed: Deployed, lifetime: int | None) -> None:
    redis, prefix, dead = deployed.fleet.redis.client, deployed.fleet.name, "d" * 64
    right = redis.hgetall(f"{prefix}:worker:alpha:{deployed.one('alpha').id[:12]}:version")
    key = f"{prefix}:worker:alpha:{dead[:12]}:version"
    redis.hset(key, mapping={**right, "containerId": dead})
    redis.zadd(f"{prefix}:workers", {f"alpha:{dead[:12]}": 1})
    if lifetime:
        redis.expire(key, lifetime)
    try:
        deployed.refused(
            f"alpha:{dead[:12]}", "no such container runs here", "[DEAD]" if lifetime else "it never expires"
        )
    finally:
        redis.delete(key)
        redis.zrem(f"{prefix}:workers", f"alpha:{dead[:12]}")


@pytest.mark.parametrize("host", ["attic", ""])
def test_a_registration_from_a_stranger(deployed: Deployed, host: str) -> None:
    """A worker on a machine that nobody lists still takes jobs from the fleet's queues; it may not say which."""
    redis, prefix, stranger = deployed.fleet.redis.client, deployed.fleet.name, "e" * 64
    right = redis.hgetall(f"{prefix}:worker:alpha:{deployed.one('alpha').id[:12]}:version")
    key = f"{prefix}:worker:alpha:{stranger[:12]}:version"
    redis.hset(key, mapping={**right, "containerId": stranger, "host": host})
    redis.zadd(f"{prefix}:workers", {f"alpha:{stranger[:12]}": 1})
    redis.expire(key, 600)
    try:
        deployed.refused(f"alpha:{stranger[:12]}", "[EXTRA]", host)
        if not host:  # that of a host is waited for
            # There is nothing to change on this host, and still something that its own proof doesn't see.
            deployed.fleet.deploy().must_fail(f"alpha:{stranger[:12]}")
    finally:
        redis.delete(key)
        redis.zrem(f"{prefix}:workers", f"alpha:{stranger[:12]}")


def test_an_empty_redis(deployed: Deployed) -> None:
    deployed.fleet.redis.client.flushall()
    deployed.refused("[RECORD]", "there is no release record")
    deployed.fleet.deploy().must_pass()


def test_a_redis_that_is_empty_before_the_run_ends(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is proved by then, and nothing else is asked of Redis by a run that found nothing to do."""
    port, password = deployed.fleet.redis.port, deployed.fleet.redis.password
    empty = f"import redis; redis.Redis(port={port}, password={password!r}).flushall()"
    with monkeypatch.context() as patch:
        patch.setenv("ANSIBLE_CALLBACK_PLUGINS", str(PROJECT / "tests" / "support" / "callbacks"))
        patch.setenv("ANSIBLE_CALLBACKS_ENABLED", "at_task")
        patch.setenv("AT_TASK", ": Close the run")
        patch.setenv("AT_TASK_RUN", json.dumps([sys.executable, "-c", empty]))
        deployed.fleet.deploy().must_fail("found number 0, as Redis lost data while this run was at work")
    deployed.fleet.deploy().must_pass()


def test_a_retagged_image(deployed: Deployed) -> None:
    fleet = deployed.fleet
    tag = f"{fleet.name}-worker"
    fleet.engine.images.get(deployed.old_image).tag(tag, deployed.sha)
    try:
        deployed.refused(deployed.one("alpha").name, deployed.one("beta").name, "[RETAGGED]", f"{tag}:{deployed.sha}")
    finally:
        fleet.engine.images.get(deployed.image).tag(tag, deployed.sha)


def test_an_anonymous_volume_over_the_code(deployed: Deployed) -> None:
    template = deployed.one("alpha")
    with deployed.instead_of(template, volumes=["/app"]):
        deployed.refused(template.name, "[MOUNTED]", "/app")


def test_a_bind_mount_over_the_code(deployed: Deployed, tmp_path: Path) -> None:
    template = deployed.one("alpha")
    (tmp_path / "worker.py").write_text((deployed.fleet.repository / "worker.py").read_text())
    (tmp_path / "behaviour.json").write_text("{}")
    tmp_path.chmod(0o755)
    with deployed.instead_of(template, binds=[f"{tmp_path}:/app:ro"]):
        deployed.refused(template.name, "[MOUNTED]", "/app")


def test_a_bind_mount_over_the_image_file(deployed: Deployed, tmp_path: Path) -> None:
    template = deployed.one("alpha")
    (tmp_path / "image.json").write_bytes(template.exec_run(["cat", "/etc/driftguard/image.json"])[1])
    tmp_path.chmod(0o755)
    with deployed.instead_of(template, binds=[f"{tmp_path}:/etc/driftguard:ro"]):
        deployed.refused(template.name, "[MOUNTED]", "/etc/driftguard")


def test_a_file_changed_in_a_running_container(deployed: Deployed) -> None:
    container = deployed.one("writable")
    status, _ = container.exec_run(["sh", "-c", "echo '# patched' >> /app/worker.py"], user="0")
    assert status == 0
    deployed.refused(container.name, "[MODIFIED]", "/app/worker.py")
    deployed.fleet.heal()


def test_data_written_in_a_running_container_is_no_drift(deployed: Deployed) -> None:
    status, _ = deployed.one("writable").exec_run(
        ["sh", "-c", "echo data > /var/tmp/data && echo data > /tmp/data"], user="0"
    )
    assert status == 0
    deployed.accepted()


def test_started_without_the_guard(deployed: Deployed) -> None:
    template = deployed.one("alpha")
    with deployed.instead_of(template, **unguarded(template)):
        deployed.refused(template.name, "[UNGUARDED]")


def test_a_guard_that_is_not_the_fleets(deployed: Deployed, tmp_path: Path) -> None:
    template = deployed.one("alpha")
    for name in ("version_guard.py", "version_guard.sh"):
        (tmp_path / name).write_text("import os, sys\nos.execvp(sys.argv[2], sys.argv[2:])\n")
    tmp_path.chmod(0o755)
    with deployed.instead_of(template, binds=[f"{tmp_path}:/opt/driftguard/guard:ro"]):
        deployed.refused(template.name, "[UNGUARDED]", str(tmp_path))


def test_a_sibling_fleet_is_no_extra(deployed: Deployed) -> None:
    """Staging and production may share an image; each one's containers say whose they are."""
    template = deployed.one("alpha")
    labels = {"io.driftguard.fleet": "sibling", "com.docker.compose.project": "sibling-workers"}
    with deployed.another(
        template, f"{deployed.fleet.name}-sibling", labels=labels, environment=["WORKER_FLEET=sibling"]
    ):
        deployed.accepted()


def test_the_fleet_is_as_it_was(deployed: Deployed) -> None:
    """The roads above each left the fleet proved, so none failed for another's leftovers."""
    rows = deployed.accepted()["rows"]
    assert [row["verdict"] for row in rows] == ["OK"] * 4
    assert deployed.fleet.verify().must_pass().output.count("[OK]") == 5
