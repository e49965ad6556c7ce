# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A commit is found, read and written out exactly, and nothing that a checkout brings along is run (real git)."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.git import Checkout, Tree

AUTHOR = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
}
COMMITTED = 1767323045


def git(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-c", "safe.directory=*", *arguments], cwd=place,
        env={**os.environ, **AUTHOR}, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(place: Path, files: dict[str, bytes], message: str = "x") -> str:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(place, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    place = tmp_path / "app"
    place.mkdir()
    git(place, "init", "--quiet", "--initial-branch=main")
    commit(place, {"Dockerfile": b"FROM x\n", "src/a.py": b"one\n", "run.sh": b"#!/bin/sh\n"})
    return place


def tree(place: Path, tmp_path: Path, directory: str = ".", revision: str = "HEAD") -> Tree:
    found = Checkout.open(str(place))
    scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    return Tree(found, found.commit(revision), directory, scratch)


def exported(place: Path, tmp_path: Path, directory: str = ".") -> Path:
    target = tmp_path / "out"
    target.mkdir()
    tree(place, tmp_path, directory).export(target)
    return target


class TestCommit:
    def test_branch_tag_and_short_sha_name_the_same_commit(self, checkout: Path) -> None:
        sha = git(checkout, "rev-parse", "HEAD")
        git(checkout, "tag", "-a", "v1", "-m", "annotated")
        opened = Checkout.open(str(checkout))
        assert {opened.commit(name) for name in ("HEAD", "main", "v1", sha[:8], sha, "refs/heads/main")} == {sha}

    @pytest.mark.parametrize(
        "revision", ["nope", "", "--help", "-h", "HEAD:src", "f" * 40, "a\nb", "a\0b", "HEAD..HEAD", "HEAD^{tree}"])
    def test_what_is_no_commit_is_an_error_that_names_it(self, checkout: Path, revision: str) -> None:
        with pytest.raises(DriftguardError) as caught:
            Checkout.open(str(checkout)).commit(revision)
        assert repr(revision) in caught.value.subject
        assert caught.value.found
        assert caught.value.remedy

    def test_a_short_sha_of_two_commits_is_refused(self, checkout: Path) -> None:
        seen: dict[str, str] = {}
        root = git(checkout, "rev-parse", "HEAD^{tree}")
        for number in range(2000):
            body = f"tree {root}\nauthor a <a> {number} +0000\ncommitter a <a> {number} +0000\n\nx\n"
            sha = hashlib.sha1(f"commit {len(body)}\0{body}".encode()).hexdigest()
            if sha[:4] in seen:
                break
            seen[sha[:4]] = body
        for text in (seen[sha[:4]], body):
            subprocess.run(
                ["git", "hash-object", "-t", "commit", "-w", "--stdin"], input=text.encode(), cwd=checkout, check=True,
                capture_output=True)
        with pytest.raises(DriftguardError, match="is ambiguous"):
            Checkout.open(str(checkout)).commit(sha[:4])

    def test_a_name_that_is_branch_and_tag_is_refused(self, checkout: Path) -> None:
        git(checkout, "branch", "both")
        commit(checkout, {"more": b""})
        git(checkout, "tag", "both")
        with pytest.raises(DriftguardError, match="exactly one commit"):
            Checkout.open(str(checkout)).commit("both")

    def test_a_repository_without_commits(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "--quiet")
        with pytest.raises(DriftguardError, match="revision 'HEAD'"):
            Checkout.open(str(tmp_path)).commit("HEAD")

    @pytest.mark.parametrize("name", ["missing", "plain", "a\0b"])
    def test_what_is_no_checkout_is_an_error(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "plain").mkdir()
        with pytest.raises(DriftguardError, match="git checkout"):
            Checkout.open(f"{tmp_path}/{name}")

    def test_a_shallow_clone_and_a_bare_one_and_a_worktree_will_do(self, checkout: Path, tmp_path: Path) -> None:
        sha = commit(checkout, {"new": b"1"})
        git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{checkout}", "shallow")
        git(tmp_path, "clone", "--quiet", "--bare", str(checkout), "bare")
        git(checkout, "worktree", "add", "--quiet", "--detach", str(tmp_path / "work"))
        for number, name in enumerate(("shallow", "bare", "work")):
            target = tmp_path / f"target{number}"
            target.mkdir()
            read = tree(tmp_path / name, tmp_path)
            read.export(target)
            assert Checkout.open(str(tmp_path / name)).commit("HEAD") == sha
            assert (target / "new").read_text() == "1"
        assert Checkout.open(str(tmp_path / "bare")).uncommitted(".") == []

    def test_the_environment_cannot_point_git_elsewhere(
            self, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sha = git(checkout, "rev-parse", "HEAD")
        other = tmp_path / "other"
        other.mkdir()
        git(other, "init", "--quiet")
        commit(other, {"other": b""})
        monkeypatch.setenv("GIT_DIR", str(other / ".git"))
        assert Checkout.open(str(checkout)).commit("HEAD") == sha


class TestUncommitted:
    def test_changed_deleted_staged_and_new_are_listed_ignored_are_not(self, checkout: Path) -> None:
        commit(checkout, {".gitignore": b"*.log\n", "gone": b""})
        (checkout / "src/a.py").write_text("two\n")
        (checkout / "gone").unlink()
        (checkout / "new file\n").write_text("")
        (checkout / "x.log").write_text("")
        (checkout / "staged").write_text("")
        git(checkout, "add", "staged")
        assert Checkout.open(str(checkout)).uncommitted(".") == ["gone", "new file\n", "src/a.py", "staged"]

    def test_only_the_named_directory_counts(self, checkout: Path) -> None:
        (checkout / "src/new").write_text("")
        (checkout / "outside").write_text("")
        assert Checkout.open(str(checkout)).uncommitted("src") == ["src/new"]
        assert Checkout.open(str(checkout / "src")).uncommitted(".") == ["src/new"]
        assert Checkout.open(str(checkout)).uncommitted("s*") == []

    def test_nothing_is_written_to_the_checkout(self, checkout: Path) -> None:
        os.utime(checkout / "src/a.py", (1, 1))  # same content, other time: a status would refresh the index
        before = (checkout / ".git/index").read_bytes()
        assert Checkout.open(str(checkout)).uncommitted(".") == []
        assert (checkout / ".git/index").read_bytes() == before


class TestForeignCheckout:
    """root reads a checkout of another user, whose configuration names programs."""

    @pytest.fixture
    def trap(self, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        sprung = tmp_path / "sprung"
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\necho x >>{sprung}\ncat\n")
        program.chmod(0o755)
        commit(checkout, {".gitattributes": b"*.py filter=trap\n", "src/b.py": b"b\n"})
        for key in ("core.fsmonitor", "filter.trap.clean", "filter.trap.smudge", "filter.trap.process", "core.pager",
                    "core.sshCommand", "filter.a=b.clean"):
            git(checkout, "config", key, str(program))
        hook = checkout / ".git/hooks/post-checkout"
        hook.write_text(program.read_text())
        hook.chmod(0o755)
        (checkout / "src/a.py").write_text("two\n")
        if os.geteuid() == 0:
            for path in [checkout, *checkout.rglob("*")]:
                os.chown(path, 12345, 12345, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        return sprung

    def test_no_program_of_its_configuration_is_run(self, checkout: Path, tmp_path: Path, trap: Path) -> None:
        opened = Checkout.open(str(checkout))
        assert opened.uncommitted(".") == ["src/a.py"]
        assert (exported(checkout, tmp_path) / "src/b.py").read_bytes() == b"b\n"
        assert not trap.exists()
        subprocess.run(  # the trap does spring where nothing guards against it
            ["git", "-c", "safe.directory=*", "status"], cwd=checkout, check=False, capture_output=True)
        assert trap.exists()


class TestTree:
    def test_a_file_is_read_from_the_commit_not_from_the_disk(self, checkout: Path, tmp_path: Path) -> None:
        (checkout / "Dockerfile").write_text("FROM uncommitted\n")
        assert tree(checkout, tmp_path).file("Dockerfile") == "FROM x\n"
        assert tree(checkout, tmp_path, "src").file("a.py") == "one\n"
        assert tree(checkout, tmp_path).file("src/nope") is None

    def test_a_path_below_the_top_of_the_checkout(self, checkout: Path, tmp_path: Path) -> None:
        commit(checkout, {"services/w/ctx/Dockerfile": b"FROM deep\n"})
        assert tree(checkout / "services/w", tmp_path, "ctx").file("Dockerfile") == "FROM deep\n"

    @pytest.mark.parametrize("directory", ["nope", "Dockerfile", "src/a.py"])
    def test_a_directory_that_the_commit_has_not(self, checkout: Path, tmp_path: Path, directory: str) -> None:
        with pytest.raises(DriftguardError, match=r"directory .* source\.context"):
            tree(checkout, tmp_path, directory).file("x")

    def test_links_and_binaries_are_no_text_files(self, checkout: Path, tmp_path: Path) -> None:
        (checkout / "link").symlink_to("/etc/shadow")
        commit(checkout, {"binary": b"\xff\xfe\0"})
        for name in ("link", "binary"):
            with pytest.raises(DriftguardError, match="regular file in UTF-8"):
                tree(checkout, tmp_path).file(name)

    def test_an_export_is_the_commit_byte_for_byte(self, checkout: Path, tmp_path: Path) -> None:
        attributes = (
            b"*.crlf text eol=crlf\nsecret export-ignore\nv export-subst ident\n*.u working-tree-encoding=UTF-16\n")
        content = {"x.crlf": b"a\nb\n", "secret": b"s", "v": b"$Format:%H$ $Id$", "t.u": "é\n".encode("utf-16")}
        commit(checkout, {".gitattributes": attributes, **content})
        (checkout / "v").write_text("uncommitted")
        (checkout / "untracked").write_text("")
        target = exported(checkout, tmp_path)
        assert {name: (target / name).read_bytes() for name in ("x.crlf", "secret", "v")} == {
            name: content[name] for name in ("x.crlf", "secret", "v")}
        assert (target / "t.u").read_text("utf-8") == "é\n"
        assert not (target / "untracked").exists()

    def test_modes_and_times_are_the_commits_whatever_the_umask(self, checkout: Path, tmp_path: Path) -> None:
        (checkout / "run.sh").chmod(0o755)
        commit(checkout, {})
        before = os.umask(0o077)
        try:
            target = exported(checkout, tmp_path)
        finally:
            os.umask(before)
        modes = {name: stat.S_IMODE((target / name).stat().st_mode) for name in ("run.sh", "src", "src/a.py")}
        assert modes == {"run.sh": 0o755, "src": 0o755, "src/a.py": 0o644}
        assert {(target / name).stat().st_mtime for name in modes} == {COMMITTED}

    def test_a_link_that_leads_out_stays_a_link(self, checkout: Path, tmp_path: Path) -> None:
        (checkout / "out").symlink_to("/etc/hostname")
        commit(checkout, {})
        assert os.readlink(exported(checkout, tmp_path) / "out") == "/etc/hostname"

    def test_submodules_are_named(self, checkout: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        git(other, "init", "--quiet")
        commit(other, {"o": b""})
        git(checkout, "submodule", "--quiet", "add", str(other), "src/vendor")
        commit(checkout, {})
        assert tree(checkout, tmp_path).submodules() == ["src/vendor"]
        assert tree(checkout, tmp_path, "src").submodules() == ["vendor"]

    def test_lfs_pointers_are_named(self, checkout: Path, tmp_path: Path) -> None:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
        commit(checkout, {"m.bin": pointer, "n": b"version"})
        target = tmp_path / "out"
        target.mkdir()
        assert tree(checkout, tmp_path).export(target) == ["m.bin"]

    def test_an_object_that_is_missing_is_an_error_and_nothing_is_fetched(self, checkout: Path, tmp_path: Path) -> None:
        git(checkout, "config", "uploadpack.allowFilter", "true")
        git(tmp_path, "clone", "--quiet", "--bare", "--filter=blob:none", f"file://{checkout}", "partial")
        with pytest.raises(DriftguardError, match="refetch"):
            exported(tmp_path / "partial", tmp_path)
