# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One commit of a checkout: which one it is, what is in it, and what lies uncommitted beside it.

A checkout may belong to another user than the one who builds (root, most often), and its configuration can name
programs to run. So its own configuration is used for two questions only (which commit, what is uncommitted), with
everything that could start a program switched off; files are read through a private git directory that borrows the
checkout's object store.

Files come out byte for byte as committed: no filters, no line-end conversion, no ``export-ignore``, ``export-subst`` or
``ident``, no hooks. What a build must not see is for ``.dockerignore`` to say.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Optional

from .errors import DriftguardError
from .names import SHA_PATTERN
from .processes import Completed, run

LISTED = 100  # uncommitted paths are for a person to read
LFS_LARGEST = 1024  # bytes; a pointer file is smaller (git-lfs specification)
_INERT = (
    "--no-replace-objects", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
# Without terminal and without fetching: what isn't here is an error, not a conversation with a server.
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
_RAW = "* -text !eol !crlf !ident !filter !working-tree-encoding\n"
_COMMITTED = re.compile(r"^committer .* (\d+) [+-]\d{4}$", re.MULTILINE)
_LFS = b"version https://git-lfs.github.com/spec/"
_FILTERS = r"^filter\..*\.(clean|smudge|process|required)$"
_SUBMODULE = "160000"
_REGULAR = ("100644", "100755")
_PLAIN = re.compile(r"^[^\x00-\x1f\x7f]+\Z")


@dataclass(frozen=True)
class Checkout:
    """A git checkout, or a bare repository.

    :param path: directory that was named, possibly below the top of the checkout.
    :param prefix: where it lies below the top, with a trailing slash; empty at the top.
    :param objects: the object store.
    :param bare: there is no working tree, so nothing can be uncommitted.
    """

    path: Path
    prefix: str
    objects: Path
    bare: bool

    @classmethod
    def open(cls, path: str) -> Checkout:
        """Look at a directory.

        :raises DriftguardError: it isn't there, or isn't in a git repository that can be read.
        """
        place = Path(path)
        if not _PLAIN.match(path) or not place.is_dir():
            raise DriftguardError(
                f"source {path!r}", "a directory with a git checkout", "no such directory",
                "clone the application there, or name its checkout in source.path")
        said = _asked(place, "rev-parse", "--is-inside-work-tree", "--show-prefix", "--git-path", "objects")
        inside, prefix, objects = said.split("\n")[:3]
        return cls(place, prefix, place / objects, inside != "true")

    def commit(self, revision: str) -> str:
        """The full SHA of a commit-ish: branch, tag, SHA or the beginning of one.

        :raises DriftguardError: it names no commit here, or more than one.
        """
        subject = f"revision {revision!r} of {self.path}"
        if not _PLAIN.match(revision):
            raise DriftguardError(
                subject, "a branch, tag or SHA", "an empty name or control characters", "give a revision such as HEAD")
        done = _git(self.path, "rev-parse", "--verify", "--end-of-options", revision + "^{commit}")
        if "is ambiguous" in done.stderr:
            raise DriftguardError(
                subject, "exactly one commit", _said(done),
                "give the full SHA, or the whole name as refs/tags/… or refs/heads/…")
        sha = done.stdout.strip()
        if done.status != 0 or not SHA_PATTERN.match(sha):
            raise DriftguardError(
                subject, "a commit (SHA-1) that this repository has", _said(done) if done.status else repr(sha),
                "commit or fetch it first (a shallow clone has only its newest commits), or name another revision")
        return sha

    def uncommitted(self, directory: str) -> list[str]:
        """Paths below a directory that differ from HEAD or that git doesn't know, ignored ones aside; at most 100.

        :param directory: relative to :attr:`path`.
        """
        if self.bare:
            return []
        said = _asked(
            self.path, "--literal-pathspecs", "status", "--porcelain=v1", "-z", "--no-renames",
            "--untracked-files=normal", "--ignore-submodules=dirty", "--", directory,
            environment=self._without_filters())
        return sorted(entry[3:] for entry in said.split("\0") if entry)[:LISTED]

    def _without_filters(self) -> dict[str, str]:
        # Git runs clean filters to compare files; another user's must not run with the builder's rights.
        if self.objects.parent.stat().st_uid == os.geteuid():
            return {}
        done = _git(self.path, "config", "--null", "--name-only", "--get-regexp", _FILTERS)
        names = [name for name in done.stdout.split("\0") if name]
        values = {f"GIT_CONFIG_KEY_{number}": name for number, name in enumerate(names)}
        values.update({f"GIT_CONFIG_VALUE_{number}": "" for number in range(len(names))})
        return {"GIT_CONFIG_COUNT": str(len(names)), **values}


class Tree:
    """The files of one commit below one directory, read through a private git directory.

    :param checkout: whose object store to read.
    :param sha: full SHA of the commit.
    :param directory: relative to the checkout's path; normalized, without ``..``.
    :param scratch: existing private directory; the caller removes it.
    """

    def __init__(self, checkout: Checkout, sha: str, directory: str, scratch: Path) -> None:
        self._sha = sha
        self._scratch = scratch
        self._name = f"{sha}:{checkout.prefix}{'' if directory == '.' else directory}".rstrip("/")
        self._subject = f"directory {directory!r} of {checkout.path} at {sha[:12]}"
        self._environment = {
            **_QUIET, "GIT_DIR": str(scratch / "git"), "GIT_OBJECT_DIRECTORY": str(checkout.objects.resolve()),
            "GIT_INDEX_FILE": str(scratch / "index"), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
        }
        for part in ("git/objects", "git/refs", "git/info"):
            (scratch / part).mkdir(parents=True)
        (scratch / "git/HEAD").write_text("ref: refs/heads/none\n")
        (scratch / "git/info/attributes").write_text(_RAW)

    def file(self, path: str) -> Optional[str]:
        """Content of a text file of the commit; None where the commit has none at that path.

        :raises DriftguardError: the directory isn't in the commit, or the path is no regular UTF-8 file.
        """
        listed = self._read("ls-tree", "-z", self._name, "--", path)
        if not listed:
            return None
        mode, _kind, rest = listed.split(" ", 2)
        content = self._read("cat-file", "blob", rest[:40]) if mode in _REGULAR else "\ufffd"
        if "\ufffd" in content:
            raise DriftguardError(
                f"file {path} in {self._subject}", "a regular file in UTF-8",
                f"mode {mode}" if mode not in _REGULAR else "bytes that are no UTF-8",
                "commit it as a plain text file, not as a link")
        return content

    def submodules(self) -> list[str]:
        """Paths of submodules, whose files are not part of the commit."""
        rows = self._read("ls-tree", "-r", "-z", self._name).split("\0")
        return [row.split("\t", 1)[1] for row in rows if row.startswith(_SUBMODULE)]

    def export(self, target: Path) -> list[str]:
        """Write the files below an empty directory; modes are 0644 and 0755, times the commit's, whatever the umask.

        :returns: files that are only Git LFS pointers, at most 100.
        :raises DriftguardError: an object is missing (partial clone) or the disk is full.
        """
        self._read("read-tree", self._name)
        self._read("checkout-index", "--all", target=target)
        committed = _COMMITTED.search(self._read("cat-file", "commit", self._sha))
        seconds = int(committed[1]) if committed else 0
        return sorted(_settled(target, seconds))[:LISTED]

    def _read(self, *arguments: str, target: Optional[Path] = None) -> str:
        place = target or self._scratch
        done = run(
            ["git", "--no-replace-objects", *arguments], cwd=place, without=("GIT_",),
            environment={**self._environment, "GIT_WORK_TREE": str(place)})
        if done.status == 0:
            return done.stdout
        missing = "Not a valid object name" in done.stderr or "not a tree object" in done.stderr
        raise DriftguardError(
            self._subject, "a directory of that commit" if missing else "files that git can read", _said(done),
            "name a directory that is committed in source.context" if missing
            else "free disk space, or make the clone complete (git fetch --refetch, git fsck)")


def _settled(target: Path, seconds: int) -> Iterator[str]:
    for folder, folders, names in os.walk(target, topdown=False):
        for name in (*names, *folders):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode):
                os.chmod(path, 0o755 if found.st_mode & stat.S_IXUSR else 0o644)
                if found.st_size < LFS_LARGEST and _starts_with(path, _LFS):
                    yield os.path.relpath(path, target)
            os.utime(path, (seconds, seconds), follow_symlinks=False)
        os.chmod(folder, 0o755)


def _starts_with(path: str, beginning: bytes) -> bool:
    with open(path, "rb") as stream:
        return stream.read(len(beginning)) == beginning


def _git(place: Path, *arguments: str, environment: Optional[Mapping[str, str]] = None) -> Completed:
    return run(
        ["git", *_INERT, *arguments], cwd=place, without=("GIT_",), environment={**_QUIET, **(environment or {})})


def _asked(place: Path, *arguments: str, environment: Optional[Mapping[str, str]] = None) -> str:
    done = _git(place, *arguments, environment=environment)
    if done.status != 0:
        raise DriftguardError(
            f"source {str(place)!r}", "a git checkout that can be read", _said(done),
            "name a checkout in source.path; where its owner is the trouble: git config --global --add safe.directory")
    return done.stdout


def _said(done: Completed) -> str:
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("hint:")]
    return "; ".join(lines)[:400] or f"exit status {done.status}"
