# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are files that belong to the image's user; a mark tells that one changed and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_secrets import HostSecrets, read_secrets

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="secret files are given to the image's user, which takes root")
OWNERS = [(10001, 10001), (0, 0)]


@pytest.mark.parametrize(("raw", "password", "found"), [
    (None, None, {}), ({}, "", {}), ({"a": "12345678"}, None, {"a": "12345678"}),
    ({"a.b-C_9": "čćžšđčćž"}, "p4ssw0rd", {"a.b-C_9": "čćžšđčćž", "redis_password": "p4ssw0rd"}),
    ({"redis_password": "0ld-password"}, "n3w-password", {"redis_password": "n3w-password"}),
    ({"key": "-----BEGIN-----\r\nline\r\n"}, None, {"key": "-----BEGIN-----\r\nline\r\n"}),
])
def test_secrets_by_name(raw: Any, password: Any, found: dict[str, str]) -> None:
    assert read_secrets("demo", raw, password) == found


@pytest.mark.parametrize("content", ["short-7", "", None, 12345678, ["long-enough"], {"a": "b"}, "\ud800long-enough",
                                     "nul\0long-enough", "   short   ", True])
def test_a_bad_secret_is_named_and_never_shown(content: Any) -> None:
    with pytest.raises(DriftguardError) as error:
        read_secrets("demo", {"good": "long-enough", "token": content}, None)
    assert error.value.subject == "fleet demo, secret token"
    assert not any(text in str(error.value) for text in ("short-7", "12345678", "long-enough"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".key", "-x", "a b", "č", "a\n", "x" * 101, 5, None])
def test_bad_names_of_secrets(name: Any) -> None:
    with pytest.raises(DriftguardError, match="worker_secrets"):
        read_secrets("demo", {name: "long-enough"}, None)


def test_a_short_redis_password_is_refused() -> None:
    with pytest.raises(DriftguardError, match="secret redis_password"):
        read_secrets("demo", {}, "short")


def test_files_belong_to_their_user_alone(tmp_path: Path) -> None:
    store = HostSecrets(tmp_path / "demo")
    store.write({"token": "s3cret-token"}, store.stale({"token": "s3cret-token"}, OWNERS))
    for uid in (10001, 0):
        path = tmp_path / "demo" / "secrets" / str(uid) / "token"
        assert path.read_text() == "s3cret-token"
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777) == (uid, uid, 0o400)
        assert path.parent.stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "demo" / "secrets").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize(
    "content", ["s3cret-token", "line\nline\n", "line\r\nline\r\n", "\ufeffčćž\u2028\x85", "x" * 10**5]
)
def test_a_written_secret_is_not_stale(tmp_path: Path, content: str) -> None:
    store, secrets = HostSecrets(tmp_path), {"token": content}
    store.write(secrets, store.stale(secrets, OWNERS))
    assert store.stale(secrets, OWNERS) == []
    assert (tmp_path / "secrets/0/token").read_bytes() == content.encode()


def _content(path: Path) -> None:
    path.write_text("another-one")


@pytest.mark.parametrize("spoil", [
    _content, Path.unlink, lambda path: path.chmod(0o440), lambda path: os.chown(path, 4, 10001),
])
def test_what_differs_is_stale(tmp_path: Path, spoil: Any) -> None:
    store, secrets = HostSecrets(tmp_path), {"other": "unt0uched", "token": "s3cret-token"}
    store.write(secrets, store.stale(secrets, OWNERS))
    spoil(tmp_path / "secrets/10001/token")
    assert store.stale(secrets, OWNERS) == [("token", 10001, 10001)]


def test_a_mark_changes_with_content_name_and_host_and_with_nothing_else(tmp_path: Path) -> None:
    one, other = HostSecrets(tmp_path / "one"), HostSecrets(tmp_path / "other")
    secrets = {"a": "s3cret-token", "b": "s3cret-token"}
    marks = one.marks(secrets, write=True)
    assert marks["a"] != marks["b"]
    assert one.marks(secrets, write=False) == HostSecrets(tmp_path / "one").marks(secrets, write=True) == marks
    assert one.marks({**secrets, "b": "changed-token"}, write=False) == {
        "a": marks["a"], "b": one.marks({"b": "changed-token"}, write=False)["b"]}
    assert one.marks({"b": "changed-token"}, write=False)["b"] != marks["b"]
    assert other.marks(secrets, write=True)["a"] != marks["a"]
    assert all(len(mark) == 16 for mark in marks.values())


def test_the_key_is_made_only_when_it_is_needed(tmp_path: Path) -> None:
    store, key = HostSecrets(tmp_path), tmp_path / "secrets" / ".key"
    assert store.marks({"a": "s3cret-token"}, write=False) != store.marks({"a": "s3cret-token"}, write=False)
    store.marks({}, write=True)
    assert not key.exists()
    store.marks({"a": "s3cret-token"}, write=True)
    assert key.stat().st_mode & 0o7777 == 0o600
    assert len(key.read_text()) == 64


def test_an_empty_key_is_no_key(tmp_path: Path) -> None:
    store, key = HostSecrets(tmp_path), tmp_path / "secrets" / ".key"
    key.parent.mkdir()
    key.touch()
    marks = store.marks({"a": "s3cret-token"}, write=True)
    assert len(key.read_text()) == 64
    assert store.marks({"a": "s3cret-token"}, write=False) == marks
