# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are files of the image's user and appear nowhere else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Iterator

import pytest
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


def test_secrets_are_files_of_the_images_user_and_a_changed_one_recreates_exactly_its_containers(fleet: Fleet) -> None:
    with_secret(fleet)
    fleet.deploy().must_pass()
    files = sorted((fleet.root / fleet.name / "secrets" / str(UID)).iterdir())
    assert [path.stem for path in files] == ["api_token", "redis_password"]
    assert all(re.fullmatch(r"\.[0-9a-f]{16}", path.suffix) for path in files)
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in files} == {(UID, 0o400)}
    assert [path for path in readable_by_others(fleet.root) if path.parent.name != "guard"] == []
    assert fleet.containers(service="alpha")[0].attrs["HostConfig"]["ReadonlyRootfs"] is True
    assert read_secret(fleet, "alpha") == SECRET
    assert read_secret(fleet, "beta") is None

    ids = fleet.ids()
    with_secret(fleet, CHANGED)
    run = fleet.deploy("--diff").must_pass()
    assert CHANGED not in run.output
    assert SECRET not in run.output
    changed = {name for name, container_id in fleet.ids().items() if ids.get(name) != container_id}
    assert {name.split("-")[2] for name in changed} == {"alpha"}
    assert read_secret(fleet, "alpha") == CHANGED
    assert fleet.deploy().must_pass().changed == 0


def read_secret(fleet: Fleet, service: str) -> str | None:
    """The secret as the first container of a service reads it, none when it can't."""
    status, said = fleet.containers(service=service)[0].exec_run(["cat", "/run/secrets/api_token"])
    return said.decode() if status == 0 else None


WRONG = "a-password-that-workers-cannot-use"
PATIENCE = ("-e", "worker_stabilize=6", "-e", "worker_wait_timeout=15", "-e", "worker_registration_timeout=12")


@pytest.fixture
def workers_user(fleet: Fleet) -> Iterator[str]:
    """A Redis user of the workers' own, who has the right password alone; the modules' user has the wrong one too.

    So that a deploy with the wrong one gets as far as its workers, as with a mistake in an access list.
    """
    client = fleet.redis.client
    name = f"user-{fleet.name}"
    client.execute_command("ACL", "SETUSER", name, "on", f">{fleet.redis.password}", "~*", "&*", "+@all")
    client.execute_command("ACL", "SETUSER", "default", f">{WRONG}")
    fleet.variables["worker_redis_url"] = fleet.redis.workers_url.replace("://", f"://{name}@")
    yield name
    client.execute_command("ACL", "DELUSER", name)
    client.execute_command("ACL", "SETUSER", "default", f"<{WRONG}")


def passwords(fleet: Fleet) -> list[str]:
    """What the running workers read as Redis's password."""
    found = [container.exec_run(["cat", "/run/secrets/redis_password"]) for container in fleet.containers()]
    assert all(status == 0 for status, _ in found), found
    return [said.decode() for _, said in found]


def test_a_bad_secret_is_rolled_back(fleet: Fleet, workers_user: str) -> None:
    fleet.deploy().must_pass()
    secrets = fleet.root / fleet.name / "secrets" / str(UID)
    (old,) = secrets.iterdir()
    ids, inode = fleet.ids(), old.stat().st_ino
    fleet.variables["worker_redis_password"] = WRONG
    run = fleet.deploy(*PATIENCE).must_fail("WRONGPASS", "back on what it ran before")
    assert fleet.evidence()[-1]["result"] == "rolled back"
    assert all(text not in run.output for text in (WRONG, fleet.redis.password))
    assert old.stat().st_ino == inode
    assert sorted(path.read_text() for path in secrets.iterdir()) == sorted([WRONG, fleet.redis.password])
    # The workers were recreated, with the password that they had before.
    assert ids.keys() == fleet.ids().keys()
    assert passwords(fleet) == [fleet.redis.password] * len(ids)
    fleet.variables["worker_redis_password"] = fleet.redis.password
    fleet.verify().must_pass()
    assert fleet.deploy().must_pass().changed == 0


def test_a_short_secret_is_refused(fleet: Fleet) -> None:
    with_secret(fleet, "short")
    fleet.deploy().must_fail("secret api_token", "at least 8 characters")


def test_a_password_in_the_workers_url_is_refused(fleet: Fleet) -> None:
    fleet.variables["worker_redis_url"] = "redis://:hunter2-hunter2@127.0.0.1:6379/0"
    run = fleet.deploy("-vvv").must_fail("worker_redis_url", "without a password")
    assert "hunter2-hunter2" not in run.output
