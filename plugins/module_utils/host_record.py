# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's release record and deployment number on this host: guard/guard.json, guard/guard.env and state/.

The two record files are written in full beside their names first, so that a full disk changes neither. Then guard.env
is renamed, then guard.json: whoever sees the new guard.json can rely on the sh guards enforcing it too. In between,
and after a kill there, each guard enforces the record before or the record after, whole; nothing that both forbid may
start. Nobody may call such a host settled: :meth:`HostRecords.read` compares the files, and the next write mends them.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

from .errors import DriftguardError
from .host_files import make_directory, read_text, sync_directory, write_atomic
from .names import guard_directory
from .record import Record, check_generation, parse_record, render_env, render_json
from .untrusted import check_fleet, check_seconds, clean, digits

RECORD_FILE = "guard.json"
ENV_FILE = "guard.env"
FENCE_FILE = "fence"
FENCE_WAIT = 10.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class HostRecord:
    """What a host says of its release.

    :param record: None when there is none, or none that can be read.
    :param problem: why the files can't be taken as they are, for a person; empty when they can.
    """

    record: Optional[Record]
    problem: str = ""


class HostRecords:
    """The record, the locks and the highest deployment number of one fleet on this host.

    :param root: directory of all fleets, such as /opt/driftguard.
    """

    def __init__(self, root: Path, fleet: str) -> None:
        self.fleet = check_fleet(fleet)
        self.directory = root / fleet
        self._guard = Path(guard_directory(str(self.directory)))
        self._state = self.directory / "state"

    def read(self) -> HostRecord:
        """The record, and whether both files say it; files that can't be read are a problem, not an error."""
        path = self._guard / RECORD_FILE
        try:
            return host_record(self.fleet, path, read_text(path), read_text(self._guard / ENV_FILE))
        except DriftguardError as error:
            return HostRecord(None, f"{error.subject}: {error.found}")

    def write(self, record: Record) -> None:
        """Make a record the host's. The caller holds :meth:`lock`.

        :raises DriftguardError: it can't be written; unless the message says so nothing was changed.
        """
        make_directory(self.directory, 0o755)
        make_directory(self._guard, 0o755)
        contents = {ENV_FILE: render_env(record), RECORD_FILE: render_json(record)}
        # Its own only: in the same directory others put guards.
        for pattern in (leftover.format(name) for name in contents for leftover in (".{}.*", "..{}.staged.*")):
            for path in self._guard.glob(pattern):
                path.unlink()
        for name, content in contents.items():
            write_atomic(self._guard / f".{name}.staged", content, 0o644)
        try:
            for name in contents:
                os.replace(self._guard / f".{name}.staged", self._guard / name)
            sync_directory(self._guard)
        except OSError as error:
            raise DriftguardError(
                str(self._guard), "to rename the new record's files", error.strerror or str(error),
                f"mend the directory and run again; until then {ENV_FILE} and {RECORD_FILE} may differ") from error

    def highest(self) -> int:
        """The highest deployment number this host has seen, 0 for none.

        :raises DriftguardError: ``state/fence`` is damaged.
        """
        return highest(self._fence()[0], self.read())

    def check(self, number: int, run: str = "") -> None:
        """Refuse a deploy that a later one has overtaken on this host.

        :param number: its deployment (fencing) number; run: its run id. Another run of the same number, possible once
            Redis has lost its data, is refused too.
        :raises DriftguardError: it was overtaken.
        """
        check_generation(str(self._state / FENCE_FILE), number, self.highest())
        seen, holder = self._fence()
        if seen == number and run and holder and clean(run) != holder:
            raise DriftguardError(
                str(self._state / FENCE_FILE), f"deploy number {number} to be run {clean(run)}",
                f"it is run {holder}'s",
                "Redis lost its data in between: nothing was changed; start a new deploy")

    def enter(self, number: int, run: str = "") -> None:
        """As :meth:`check`, and refuse every lower number from now on; to be called before anything is changed."""
        self._make_state()
        with file_lock(self._state / "lock.fence", run, FENCE_WAIT):
            self.check(number, run)
            content = f"{number} {clean(run)}\n"
            if read_text(self._state / FENCE_FILE) != content:
                write_atomic(self._state / FENCE_FILE, content, 0o600)

    @contextmanager
    def lock(self, run: str, wait: float) -> Iterator[int]:
        """Be the only one that changes this fleet on this host; yields the descriptor, see :func:`file_lock`.

        :param run: shown to whoever has to wait.
        :param wait: seconds to wait for another holder.
        :raises DriftguardError: another still holds it; names it.
        """
        check_seconds("lock_wait", wait)
        self._make_state()
        with file_lock(self._state / "lock", run, wait) as handle:
            yield handle

    @contextmanager
    def turn(self, number: Optional[int], run: str, wait: float) -> Iterator[int]:
        """As :meth:`lock`, for a deploy that a later one may have overtaken on the way here or while it waited.

        :param number: as of :meth:`enter`; None for who is no deploy, and can't be overtaken.
        :raises DriftguardError: another holds the lock, or this deploy was overtaken.
        """
        if number is not None:
            self.enter(number, run)
        with self.lock(run, wait) as handle:
            if number is not None:
                self.check(number, run)
            yield handle

    def _make_state(self) -> None:
        make_directory(self.directory, 0o755)
        make_directory(self._state, 0o700)

    def _fence(self) -> tuple[int, str]:
        path = self._state / FENCE_FILE
        return fence(path, read_text(path))


def host_record(fleet: str, path: Path, text: Optional[str], env: Optional[str]) -> HostRecord:
    """What two files say of a host's release. Pure.

    :param path: of guard.json, for messages.
    :param text: of guard.json, None where there is none; env: of guard.env.
    """
    if text is None:
        return HostRecord(None, "" if env is None else f"{ENV_FILE} is there, {RECORD_FILE} isn't")
    try:
        record = parse_record(text, str(path), fleet, "deploy again")
    except DriftguardError as error:
        return HostRecord(None, f"{error.subject}: {error.found}")
    agree = env == render_env(record)
    return HostRecord(record, "" if agree else f"{ENV_FILE} doesn't say the same as {RECORD_FILE}")


def fence(path: Path, text: Optional[str]) -> tuple[int, str]:
    """The highest deployment number that entered a host, 0 for none, and its run. Pure.

    :raises DriftguardError: it says something else.
    """
    if text is None:
        return 0, ""
    number, _space, run = text.rstrip("\n").partition(" ")
    value = digits(number)
    if value is None:
        raise DriftguardError(
            str(path), "the highest deployment number seen on this host", repr(clean(text)),
            "make sure that no deploy runs, remove the file, then run again")
    return value, clean(run)


def highest(entered: int, found: HostRecord) -> int:
    """The highest deployment number that a host has seen, 0 for none. Pure."""
    return max(entered, found.record.generation if found.record else 0)


@contextmanager
def file_lock(path: Path, run: str, wait: float) -> Iterator[int]:
    """Hold ``flock`` on a file, which goes with the process however it ends.

    Yields the file's descriptor: a child that inherits it holds the lock as long as it lives.

    :param run: written to the file for whoever has to wait.
    :param wait: seconds to wait for another holder.
    :raises DriftguardError: another still holds it; names it.
    """
    handle = _open(path)
    try:
        _await(handle, path, wait)
        _leave_note(handle, run)
        yield handle
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DriftguardError(
            str(path), "a lock file that can be opened", error.strerror or str(error),
            "mend the directory's permissions or the disk, or run with become") from error


def _await(handle: int, path: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise DriftguardError(
                    str(path), f"the lock within {wait:g} s", f"held by {_note(handle)}",
                    "wait for that run to end, or stop it; the lock goes with its process") from error
        time.sleep(POLL_SECONDS)


def _leave_note(handle: int, run: str) -> None:
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()}, run {clean(run) or 'unnamed'}\n".encode(), 0)
    except OSError:
        return  # a full disk: the lock is held all the same, only nameless


def _note(handle: int) -> str:
    return clean(os.pread(handle, 400, 0).decode("utf-8", "replace").strip()) or "a process that left no name"
