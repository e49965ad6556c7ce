# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine: files, modes and owners, the record that the guards read, listening ports."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

ROOT = "/opt/driftguard/molecule"


@pytest.mark.parametrize(("path", "mode", "owner"), [
    ("guard", 0o755, 0),
    ("guard/version_guard.py", 0o755, 0),
    ("guard/version_guard.sh", 0o755, 0),
    ("guard/version-guard.cjs", 0o755, 0),
    ("guard/guard.json", 0o644, 0),
    ("guard/guard.env", 0o644, 0),
    ("revisions", 0o700, 0),
    ("revisions/1", 0o700, 0),
    ("revisions/1/compose.yml", 0o600, 0),
    ("revisions/1/release.json", 0o600, 0),
    ("secrets", 0o700, 0),
    ("secrets/.key", 0o600, 0),
    ("secrets/10001", 0o700, 0),
    ("state", 0o700, 0),
])
def test_a_file_has_its_mode_and_owner(host: Any, path: str, mode: int, owner: int) -> None:
    found = host.file(f"{ROOT}/{path}")
    assert (found.mode, found.uid) == (mode, owner)


def test_the_secret_is_one_file_that_the_revision_names(host: Any) -> None:
    (path,) = host.check_output(f"find {ROOT}/secrets/10001 -type f").splitlines()
    assert re.fullmatch(ROOT + r"/secrets/10001/redis_password\.[0-9a-f]{16}", path)
    assert (host.file(path).mode, host.file(path).uid) == (0o400, 10001)
    assert path in host.file(f"{ROOT}/current/compose.yml").content_string


def test_the_guards_are_those_of_this_checkout(host: Any) -> None:
    for name in ("version_guard.py", "version_guard.sh", "version-guard.cjs"):
        host.check_output(f"cmp {ROOT}/guard/{name} $MOLECULE_PROJECT_DIRECTORY/files/guard/{name}")
        assert host.file(f"{ROOT}/guard/{name}").size > 1000


def test_current_is_the_first_revision(host: Any) -> None:
    assert host.file(f"{ROOT}/current").linked_to == f"{ROOT}/revisions/1"


def test_nothing_is_left_half_written(host: Any) -> None:
    assert host.check_output(f"find {ROOT} -name '.*' -not -name .key") == ""


def test_the_record_is_settled_on_the_commit(host: Any, head: str) -> None:
    record = json.loads(host.file(f"{ROOT}/guard/guard.json").content_string)
    assert (record["fleet"], record["phase"], record["target"]["sha"]) == ("molecule", "settled", head)
    assert record["allowed"] == [record["target"]]


def test_both_records_say_the_same(host: Any) -> None:
    record = json.loads(host.file(f"{ROOT}/guard/guard.json").content_string)
    lines = host.file(f"{ROOT}/guard/guard.env").content_string.splitlines()
    target = f"{record['target']['releaseId']}:{record['target']['sha']}"
    assert lines == [
        "SCHEMA=1", "FLEET=molecule", f"GENERATION={record['generation']}", "PHASE=settled", f"TARGET={target}",
        f"ALLOWED={target}"]


def test_the_compose_file_is_valid_and_names_images_by_digest(host: Any, compose: dict[str, Any]) -> None:
    host.check_output(f"docker compose -f {ROOT}/current/compose.yml config --quiet")
    images = {service["image"] for service in compose["services"].values()}
    assert all("sha256:" in image for image in images)


def test_redis_listens_on_loopback_only(host: Any) -> None:
    assert host.socket("tcp://127.0.0.1:26379").is_listening
    assert host.check_output("docker port molecule-redis") == "6379/tcp -> 127.0.0.1:26379"


def test_no_worker_listens_on_the_host(host: Any) -> None:
    assert not host.socket("tcp://8081").is_listening
