# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts processes: list arguments, bytes in and out, explicit environment."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable, Mapping, Optional, Sequence, Union

from .errors import DriftguardError

OUTPUT_TAIL_LINES = 20
MEANWHILE_SECONDS = 0.5
ORDERLY_SECONDS = 5.0

_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Completed:
    """What a process left behind: its arguments, exit status and output (decoded, undecodable bytes replaced)."""

    arguments: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def tail(self) -> str:
        """The last lines of what it said, errors first, for a failure message."""
        said = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return "\n".join(said[-OUTPUT_TAIL_LINES:]) or "no output"


def run(
    arguments: Sequence[str],
    *,
    cwd: Optional[Path] = None,
    environment: Optional[Mapping[str, str]] = None,
    without: tuple[str, ...] = (),
    keep_open: tuple[int, ...] = (),
    stdin: Union[bytes, IO[bytes]] = b"",
    timeout: float = 600.0,
    meanwhile: Optional[Callable[[], None]] = None,
) -> Completed:
    """Run a process to its end.

    :param arguments: program and arguments; never a shell string.
    :param environment: variables added to the caller's own environment.
    :param without: prefixes of variables of the caller that the process must not see.
    :param keep_open: descriptors that the process inherits, such as a lock that it shall hold as long as it works.
    :param stdin: bytes fed to the process, or an open file it reads.
    :param timeout: seconds; past it the whole process group is killed.
    :param meanwhile: called twice a second, unless the process is fed bytes: Python forgets the rest of them when asked
        in between. When it raises, the process group is told to end (SIGTERM), and killed when it doesn't
        within 5 seconds.
    :raises DriftguardError: the program is missing, or it did not end in time; and what ``meanwhile`` raises.
    """
    feed = stdin if isinstance(stdin, bytes) else None
    own = {name: value for name, value in os.environ.items() if not name.startswith(without or "\0")}
    own.update({"LC_ALL": "C", **(environment or {})})
    process = _start(arguments, cwd, own, subprocess.PIPE if feed is not None else stdin, keep_open)  # type: ignore[arg-type]
    _running.add(process)
    try:
        out, err = _communicate(process, feed, timeout, meanwhile)
    except BaseException as failure:
        if isinstance(failure, DriftguardError):
            _end_group(process)
        # Interrupted or out of time: a half-done tool must not go on working behind our back.
        _kill_group(process)
        if isinstance(failure, subprocess.TimeoutExpired):
            raise DriftguardError(
                arguments[0],
                f"an end within {timeout:g} s",
                "it was still running and was killed",
                f"run it by hand to see where it hangs: {' '.join(arguments)}",
            ) from failure
        raise
    finally:
        _running.discard(process)
    return Completed(
        tuple(arguments), process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
    )


def check(
    arguments: Sequence[str],
    *,
    remedy: str,
    cwd: Optional[Path] = None,
    environment: Optional[Mapping[str, str]] = None,
    without: tuple[str, ...] = (),
    keep_open: tuple[int, ...] = (),
    stdin: Union[bytes, IO[bytes]] = b"",
    timeout: float = 600.0,
) -> Completed:
    """Like :func:`run`, but a non-zero exit status is a :class:`DriftguardError` that carries the output's tail.

    :param remedy: what the reader should do when the program fails.
    """
    done = run(
        arguments, cwd=cwd, environment=environment, without=without, keep_open=keep_open, stdin=stdin, timeout=timeout
    )
    return checked(done, remedy)


def checked(done: Completed, remedy: str) -> Completed:
    """What a process left behind, which must be an exit status of 0.

    :raises DriftguardError: it isn't; carries the output's tail.
    """
    if done.status != 0:
        raise DriftguardError(
            " ".join(done.arguments[:3]), "exit status 0", f"exit status {done.status}: {done.tail()}", remedy
        )
    return done


def stop_all() -> None:
    """Kill every process that :func:`run` still waits for, with its group; whoever waits gets the exit status.

    For a program that is told to stop while its threads wait for processes.
    """
    for process in tuple(_running):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _start(
    arguments: Sequence[str],
    cwd: Optional[Path],
    environment: Mapping[str, str],
    stdin: Union[int, IO[bytes]],
    keep_open: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(arguments),
            cwd=cwd,
            env=dict(environment),
            pass_fds=keep_open,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DriftguardError(
            arguments[0],
            "a program that can be started",
            f"{error.strerror}",
            f"install {arguments[0]} on this machine or mend its permissions",
        ) from error


def _communicate(
    process: subprocess.Popen[bytes], feed: Optional[bytes], timeout: float, meanwhile: Optional[Callable[[], None]]
) -> tuple[bytes, bytes]:
    if meanwhile is None or feed:
        return process.communicate(feed, timeout=timeout)
    deadline = time.monotonic() + timeout
    while True:
        try:
            return process.communicate(feed, timeout=min(MEANWHILE_SECONDS, max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                raise
        meanwhile()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(ORDERLY_SECONDS)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
