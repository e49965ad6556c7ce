# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are files that belong to the image's user and are named by their content; a mark tells nothing else."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_secrets import HostSecrets, read_secrets
from ansible_collections.driftguard.workers.plugins.module_utils.revisions import Revisions

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="secret files are given to the image's user, which takes root")
IDS = (10001, 0)


def owners(secrets: dict[str, str]) -> list[tuple[str, int, int]]:
    return [(name, uid, uid) for name in secrets for uid in IDS]


def written(root: Path, secrets: dict[str, str]) -> dict[str, Path]:
    """Write secrets as worker_compose does; secret name → its file of uid 10001."""
    store = HostSecrets(root)
    marks = store.marks(secrets, write=True)
    store.write(secrets, store.stale(secrets, marks, owners(secrets)))
    return {name: root / "secrets/10001" / f"{name}.{mark}" for name, mark in marks.items()}


def stale(root: Path, secrets: dict[str, str]) -> list[tuple[str, int]]:
    store = HostSecrets(root)
    marks = store.marks(secrets, write=False)
    return [(file.name, file.uid) for file in store.stale(secrets, marks, owners(secrets))]


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root / "secrets")) for path in (root / "secrets").glob("[0-9]*/*"))


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
    name = written(tmp_path / "demo", {"token": "s3cret-token"})["token"].name
    for uid in (10001, 0):
        path = tmp_path / "demo" / "secrets" / str(uid) / name
        assert path.read_text() == "s3cret-token"
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777) == (uid, uid, 0o400)
        assert path.parent.stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "demo" / "secrets").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize(
    "content", ["s3cret-token", "line\nline\n", "line\r\nline\r\n", "\ufeffčćž\u2028\x85", "x" * 10**5]
)
def test_a_written_secret_is_not_stale(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, {"token": content})["token"]
    assert stale(tmp_path, {"token": content}) == []
    assert path.read_bytes() == content.encode()


def _content(path: Path) -> None:
    path.write_text("another-one")


@pytest.mark.parametrize("spoil", [
    _content, Path.unlink, lambda path: path.chmod(0o440), lambda path: os.chown(path, 4, 10001),
])
def test_what_differs_is_stale(tmp_path: Path, spoil: Any) -> None:
    secrets = {"other": "unt0uched", "token": "s3cret-token"}
    path = written(tmp_path, secrets)["token"]
    spoil(path)
    assert stale(tmp_path, secrets) == [("token", 10001)]
    written(tmp_path, secrets)
    assert stale(tmp_path, secrets) == []
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("s3cret-token", 0o400)


def test_what_is_right_is_not_written_again(tmp_path: Path) -> None:
    secrets = {"other": "unt0uched", "token": "s3cret-token"}
    before = {path: path.stat().st_ino for path in written(tmp_path, secrets).values()}
    after = written(tmp_path, {**secrets, "token": "n3w-s3cret-token"})
    assert {path: path.stat().st_ino for path in before} == before
    assert after["other"] in before


@pytest.mark.parametrize("name", ["token", "a.b-C_9", "token.0123456789abcdef", "x" * 100])
def test_another_content_is_another_file(tmp_path: Path, name: str) -> None:
    old = written(tmp_path, {name: "s3cret-token"})[name]
    new = written(tmp_path, {name: "n3w-s3cret-token"})[name]
    assert (old.read_text(), new.read_text()) == ("s3cret-token", "n3w-s3cret-token")
    assert re.fullmatch(re.escape(name) + r"\.[0-9a-f]{16}", new.name)
    assert written(tmp_path, {name: "s3cret-token"})[name] == old


def revision(root: Path, number: int, *paths: Path) -> None:
    """Write a revision whose compose file names these files."""
    listed = "".join(f"  s{place}:\n    file: {path}\n" for place, path in enumerate(paths))
    Revisions(root).write(number, f"secrets:\n{listed}", "{}")


def test_a_sweep_keeps_what_a_revision_names_and_removes_the_rest(tmp_path: Path) -> None:
    old = written(tmp_path, {"token": "s3cret-token", "token.more": "m0re-of-it"})
    new = written(tmp_path, {"token": "n3w-s3cret-token"})
    lost = written(tmp_path, {"token": "of-a-killed-run"})
    older = {name: tmp_path / "secrets/10001" / name for name in ("token", "unnamed")}
    half = tmp_path / "secrets/10001/.token.0123456789abcdef.x7_kill"
    for path in (*older.values(), half):
        path.write_text("in-place-before")
    revision(tmp_path, 1, older["token"])
    revision(tmp_path, 7, old["token"], old["token.more"])
    revision(tmp_path, 8, new["token"])
    key = (tmp_path / "secrets/.key").read_text()
    HostSecrets(tmp_path).sweep(Revisions(tmp_path))
    assert files(tmp_path) == sorted(
        f"10001/{path.name}" for path in (older["token"], *old.values(), new["token"]))
    assert not lost["token"].exists()
    assert (tmp_path / "secrets/.key").read_text() == key
    shutil.rmtree(tmp_path / "revisions/1")
    shutil.rmtree(tmp_path / "revisions/7")
    HostSecrets(tmp_path).sweep(Revisions(tmp_path))
    assert files(tmp_path) == [f"10001/{new['token'].name}"]


def test_a_name_that_begins_another_is_not_kept_for_it(tmp_path: Path) -> None:
    path = written(tmp_path, {"token": "s3cret-token"})["token"]
    revision(tmp_path, 1, path)
    path.with_name("token").write_text("in-place-before")
    path.with_name(path.name[:-1]).write_text("not its mark")
    HostSecrets(tmp_path).sweep(Revisions(tmp_path))
    assert files(tmp_path) == [f"10001/{path.name}"]


def test_a_sweep_of_nothing(tmp_path: Path) -> None:
    HostSecrets(tmp_path / "demo").sweep(Revisions(tmp_path / "demo"))
    assert list(tmp_path.iterdir()) == []


def test_while_a_revision_cannot_be_read_nothing_is_removed(tmp_path: Path) -> None:
    path = written(tmp_path, {"token": "s3cret-token"})["token"]
    revision(tmp_path, 1, path)
    revision(tmp_path, 2)
    (tmp_path / "revisions/2/compose.yml").write_bytes(b"\xff")
    before = files(tmp_path)
    HostSecrets(tmp_path).sweep(Revisions(tmp_path))
    assert files(tmp_path) == before


def test_what_cannot_be_removed_does_not_stop_a_sweep(tmp_path: Path) -> None:
    path = written(tmp_path, {"token": "s3cret-token"})["token"]
    path.with_name("a.directory").mkdir()
    HostSecrets(tmp_path).sweep(Revisions(tmp_path))
    assert files(tmp_path) == ["10001/a.directory"]


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
