# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and missing services: a clear error, a non-zero exit status, and nothing half done."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml
from support.fleet import Fleet, FleetRedis, wait_for

#: A service by what is wrong with it, and how that is named.
SERVICES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown-key": ({"memroy": "64M"}, ("memroy", "unknown key")),
    "no-memory": ({"memory": ""}, ("memory",)),
    "replicas": ({"replicas": 0}, ("replicas",)),
    "git-sha": ({"environment": {"GIT_SHA": "0" * 40}}, ("GIT_SHA", "makes a stale image look current")),
    "engine-socket": ({"volumes": ["/var/run/docker.sock:/docker.sock"]}, ("raw engine socket",)),
    "short-grace": ({"stop_grace_period": "1s", "drain_time": "30s"}, ("stop_grace_period", "drain time")),
    "shell-string": ({"command": "python worker.py"}, ("command", "list of arguments")),
}
SPECS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "mount over the code": ({"alpha": {"volumes": ["data:/app"]}}, ("alpha", "/app", "no mount over the code")),
    "development runner": ({"alpha": {"command": ["npx", "tsx", "worker.ts"]}}, ("alpha", "tsx")),
    "unknown variant": ({"alpha": {"variant": "gpu"}}, ("alpha", "variant", "gpu")),
    "unknown secret": ({"alpha": {"secrets": ["nobody"]}}, ("alpha", "nobody", "worker_secrets")),
    "no services": ({}, ("worker_fleet_services",)),
    "bad name": ({"Alpha!": None}, ("Alpha!",)),
}


def untouched(fleet: Fleet) -> bool:
    """Whether nothing of a fleet is on the host."""
    written = [fleet.root / fleet.name / name for name in ("revisions", "secrets")]
    return not fleet.containers() and not any(path.exists() for path in written)


@pytest.mark.parametrize("name", SPECS)
def test_a_bad_spec_costs_nothing(fleet: Fleet, name: str) -> None:
    services, said = SPECS[name]
    fleet.variables["worker_fleet_services"] = services
    fleet.deploy().must_fail("expected", "found", "remedy", *said)
    assert untouched(fleet)


def test_every_bad_service_is_named_at_once(fleet: Fleet) -> None:
    fleet.variables["worker_fleet_services"] = {name: service for name, (service, _) in SERVICES.items()}
    run = fleet.deploy().must_fail("expected", "found", "remedy", f"{len(SERVICES)} problems")
    for name, (_, said) in SERVICES.items():
        for text in (f"service '{name}'", *said):
            assert text in " ".join(run.output.split()), f"{name}: {text!r} isn't in:\n{run.output}"
    assert untouched(fleet)


def test_redis_down(fleet: Fleet) -> None:
    fleet.variables["worker_redis_control_url"] = "redis://127.0.0.1:1/0"
    fleet.deploy().must_fail("127.0.0.1:1", "expected", "remedy")
    assert fleet.containers() == []


def test_redis_password_wrong(fleet: Fleet) -> None:
    fleet.variables["worker_redis_password"] = "certainly-not-this-one"
    run = fleet.deploy().must_fail("expected", "remedy", "password")
    assert "certainly-not-this-one" not in run.output
    assert fleet.containers() == []


def test_redis_that_evicts_keys(fleet: Fleet) -> None:
    client = fleet.redis.client
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        fleet.deploy().must_fail("noeviction")
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert fleet.containers() == []


def test_engine_down(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.deploy().must_pass()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    fleet.deploy().must_fail("Docker Engine", "expected", "remedy")
    fleet.verify().must_fail("Docker Engine", "expected", "remedy")


@pytest.mark.parametrize(("name", "value"), [("worker_stabilize", "soon"), ("worker_redis_url", None)])
def test_a_variable_of_the_wrong_kind_or_none(fleet: Fleet, name: str, value: str | None) -> None:
    if value is None:
        del fleet.variables[name]
    else:
        fleet.variables[name] = value
    fleet.deploy().must_fail("expected", "found", name, "remedy")
    assert [record["result"] for record in fleet.evidence()] == ["failed"]
    assert not fleet.root.exists()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_disk_full_while_rendering(fleet: Fleet, full_disk: Path) -> None:
    fleet.root = full_disk
    fleet.variables["worker_root"] = str(full_disk)
    fleet.deploy().must_pass()
    before = {path: path.read_bytes() for path in full_disk.rglob("*") if path.is_file() and "state" not in path.parts}
    ids = fleet.ids()
    filler = full_disk / "filler"
    with filler.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"x" * 64)
    fleet.commit()
    fleet.deploy().must_fail("No space left on device", "remedy")
    after = {
        path: path.read_bytes()
        for path in full_disk.rglob("*")
        if path.is_file() and "state" not in path.parts and path != filler
    }
    assert after == before
    assert fleet.ids() == ids
    assert fleet.evidence()[-1]["result"] == "failed"
    filler.unlink()
    fleet.verify().must_pass()
    fleet.deploy().must_pass()


def test_a_refusal_on_one_host_keeps_no_other_from_saying_what_the_run_came_to(fleet: Fleet, tmp_path: Path) -> None:
    second = tmp_path / "second.yml"
    second.write_text(yaml.safe_dump({"workers": {"hosts": {"there": {
        "ansible_connection": "local", "worker_lease": "soon"}}}}))
    fleet.deploy("-i", str(second)).must_fail(
        "The run failed before it touched any container", "there, variables", "worker_lease")
    record = fleet.evidence()[-1]
    assert (record["result"], set(record["hosts"])) == ("failed", {"here", "there"})
    assert untouched(fleet)


def test_a_refusal_on_the_first_host_is_all_that_is_said(fleet: Fleet, tmp_path: Path) -> None:
    """The run has no leader then; the others end without a word of their own."""
    second = tmp_path / "second.yml"
    second.write_text(yaml.safe_dump({"workers": {"hosts": {
        "here": {"worker_lease": "soon"}, "there": {"ansible_connection": "local"}}}}))
    run = fleet.deploy("-i", str(second)).must_fail("here, variables of the fleet", "worker_lease")
    assert "has no attribute" not in run.output
    assert untouched(fleet)


def test_another_deploy_holds_the_lease(fleet: Fleet, fleet_redis: FleetRedis) -> None:
    fleet.deploy().must_pass()
    process = fleet.start("deploy-workers.yml", "-e", "worker_services=alpha", "-e", "worker_stabilize=8")
    wait_for(lambda: fleet_redis.client.exists(f"{fleet.name}:lock:deploy"), "the lease to be taken")
    first = fleet.log
    sha = fleet.commit()
    fleet.play("deploy-workers.yml").must_fail("deployment lease of fleet", "found held by ", "expires in")
    assert not fleet.engine.images.list(filters={"label": f"org.opencontainers.image.revision={sha}"})
    assert process.wait(timeout=1200) == 0, first.read_text()
