# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a worker says it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftguard_worker.identity import Identity, instance_name, release_of
from driftguard_worker.settings import Settings


def test_instance_in_a_container_is_what_docker_ps_shows() -> None:
    assert instance_name("ab12" * 16, "anything", 7) == "ab12ab12ab12"


def test_instance_outside_is_told_apart_by_host_and_process() -> None:
    assert instance_name("", "host1.example", 4711) == "host1.example-4711"


@settings(deadline=None)
@given(st.text())
def test_instance_is_always_a_name_that_readers_accept(hostname: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", instance_name("", hostname, 4_194_304))


def test_release_is_read_from_the_image(tmp_path: Path) -> None:
    path = tmp_path / "image.json"
    content = {"release": "0123456789ab.89abcdef0123", "revision": "a" * 40}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert release_of(path) == ("0123456789ab.89abcdef0123", "a" * 40)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"release": 1, "revision": "a"}', '{"release": "a"}', "\udcff", "{"]
)
def test_release_is_unknown_in_a_file_that_does_not_say(tmp_path: Path, content: str) -> None:
    path = tmp_path / "image.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert release_of(path) is None


def test_release_is_unknown_without_a_file(tmp_path: Path) -> None:
    assert release_of(tmp_path / "image.json") is None


def test_identity_of_this_process(worker_environment: dict[str, str], tmp_path: Path) -> None:
    worker_environment.update(WORKER_HOST="inventory-name", GIT_SHA="a" * 40, BUILD_DATE="2026-01-02T03:04:05Z")
    identity = Identity.of_this_process(Settings(), tmp_path / "none")
    assert identity.worker_id == f"extractor:{identity.instance}"
    assert (identity.host, identity.git_sha, identity.build_date) == (
        "inventory-name",
        "a" * 40,
        "2026-01-02T03:04:05Z",
    )
