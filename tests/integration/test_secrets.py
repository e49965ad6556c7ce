# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are files of the image's user and appear nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

from support.fleet import Fleet

SECRET = "s3cret-of-the-service"
CHANGED = "another-s3cret-of-it"
UID = 10002


def readable_by_others(root: Path) -> list[Path]:
    """Files below a directory that more than their owner may read."""
    return [path for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]


def with_secret(fleet: Fleet, value: str = SECRET) -> None:
    """Give alpha a secret."""
    fleet.variables["worker_secrets"] = {"api_token": value}
    fleet.variables["worker_fleet_services"]["alpha"] = {"secrets": ["api_token"]}


def test_no_secret_appears_anywhere(fleet: Fleet) -> None:
    with_secret(fleet)
    outputs = [
        fleet.deploy("-vvv", "--check", "--diff").must_pass().output,
        fleet.deploy("-vvv", "--diff").must_pass().output,
        fleet.verify("-vvv").must_pass().output,
    ]
    # The bad release prints the secret it was given, as a careless worker would.
    fleet.commit(crash_after=0, say=f"my token is {SECRET} and redis is {fleet.redis.password}")
    outputs.append(fleet.deploy("-vvv", "--diff", "-e", "worker_stabilize=1").must_fail("boom").output)
    outputs += [json.dumps(record) for record in fleet.evidence()]
    outputs += [json.dumps(container.attrs) for container in fleet.containers()]
    outputs += [
        json.dumps(image.attrs)
        for image in fleet.engine.images.list(filters={"label": f"io.driftguard.fleet={fleet.name}"})
    ]
    root = fleet.root / fleet.name
    outputs += [path.read_text() for path in root.rglob("*") if path.is_file() and "secrets" not in path.parts]
    for text in outputs:
        for secret in (SECRET, fleet.redis.password):
            place = text.find(secret)
            assert place < 0, text[max(0, place - 300) : place + 100]


def test_secrets_are_files_of_the_images_user(fleet: Fleet) -> None:
    with_secret(fleet)
    fleet.deploy().must_pass()
    files = sorted((fleet.root / fleet.name / "secrets" / str(UID)).iterdir())
    assert [path.name for path in files] == ["api_token", "redis_password"]
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in files} == {(UID, 0o400)}
    assert [path for path in readable_by_others(fleet.root) if path.parent.name != "guard"] == []
    container = fleet.containers(service="alpha")[0]
    assert container.attrs["HostConfig"]["ReadonlyRootfs"] is True
    status, said = container.exec_run(["cat", "/run/secrets/api_token"])
    assert (status, said.decode()) == (0, SECRET)
    assert fleet.containers(service="beta")[0].exec_run(["cat", "/run/secrets/api_token"])[0] != 0


def test_a_changed_secret_recreates_exactly_its_containers(fleet: Fleet) -> None:
    with_secret(fleet)
    fleet.deploy().must_pass()
    ids = fleet.ids()
    with_secret(fleet, CHANGED)
    run = fleet.deploy("--diff").must_pass()
    assert CHANGED not in run.output
    assert SECRET not in run.output
    assert {name.split("-")[2] for name, container_id in fleet.ids().items() if ids.get(name) != container_id} == {
        "alpha"
    }
    assert fleet.containers(service="alpha")[0].exec_run(["cat", "/run/secrets/api_token"])[1].decode() == CHANGED
    assert fleet.deploy().must_pass().changed == 0


def test_a_short_secret_is_refused(fleet: Fleet) -> None:
    with_secret(fleet, "short")
    fleet.deploy().must_fail("secret api_token", "at least 8 characters")


def test_a_password_in_the_workers_url_is_refused(fleet: Fleet) -> None:
    fleet.variables["worker_redis_url"] = "redis://:hunter2-hunter2@127.0.0.1:6379/0"
    run = fleet.deploy("-vvv").must_fail("worker_redis_url", "without a password")
    assert "hunter2-hunter2" not in run.output
