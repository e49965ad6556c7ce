# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tools start programs: list arguments, no standard input, output to a log, nothing half alive after Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Callable, Iterator, Mapping, Optional, Sequence, TypeVar

from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError

from .paths import CACHE, ROOT, VENV

T = TypeVar("T")
STOPPING = threading.Event()
POLL = 0.2
END_GRACE = 20.0
OWN_TO_ROOT = ("HOME", "LOGNAME", "MAIL", "PATH", "SHELL", "USER")
OUT_OF_TIME = 124  # as timeout(1) exits


def tool_environment() -> dict[str, str]:
    """This process's environment with the checkout's programs first and this checkout's Ansible configuration."""
    return {
        **os.environ,
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(VENV),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PYTHONUNBUFFERED": "1",
        # Stages that run as root would leave files of root's beside the sources of a user.
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(CACHE / "hypothesis"),
    }


def output_of(arguments: Sequence[str], timeout: float = 20.0) -> Optional[str]:
    """Standard output of a short question to a program; None when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=timeout, cwd=ROOT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def run_visible(arguments: Sequence[str], environment: Optional[Mapping[str, str]] = None) -> int:
    """Run a program on this terminal; its exit status."""
    return subprocess.run(list(arguments), cwd=ROOT, env=environment or tool_environment(), check=False).returncode


def run_logged(
    arguments: Sequence[str],
    log: IO[bytes],
    *,
    environment: Optional[Mapping[str, str]] = None,
    timeout: float = 1800.0,
    cwd: Path = ROOT,
) -> int:
    """Run a program with its output appended to a log; its exit status, 124 when it took longer than timeout seconds.

    Ctrl-C and SIGTERM reach the whole process group, which gets time to clean up before it is killed.
    """
    log.write(f"$ {' '.join(arguments)}\n".encode())
    log.flush()
    with started(arguments, log, environment, cwd) as process:
        status = end_of(process, timeout)
    if status is None:
        log.write(f"\nstopped after {timeout:g} s\n".encode())
    return OUT_OF_TIME if status is None else status


def end_of(process: subprocess.Popen[bytes], seconds: float) -> Optional[int]:
    """A program's exit status; None when it still runs after some seconds, or the whole run is being stopped."""
    deadline = time.monotonic() + seconds
    while not STOPPING.is_set():
        try:
            return process.wait(max(0.0, min(POLL, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                break
    return None


def side_by_side(jobs: Sequence[Callable[[], T]], width: int) -> list[T]:
    """Run jobs in threads, a number of them at a time; on Ctrl-C all programs they wait for are ended first."""
    with ThreadPoolExecutor(width) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            STOPPING.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def started(
    arguments: Sequence[str], log: IO[bytes], environment: Optional[Mapping[str, str]] = None, cwd: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running program in a process group of its own, that has ended when the block is left, whatever happened in it.

    :raises DriftguardError: it can't be started.
    """
    try:
        process = subprocess.Popen(
            list(arguments), cwd=cwd, env=environment or tool_environment(), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, process_group=0)
    except OSError as error:
        raise DriftguardError(
            arguments[0], "a program that can be started", str(error.strerror),
            "run tools/setup, which installs what is missing") from error
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGINT, END_GRACE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        _signal_group(process.pid, sign)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def _signal_group(group: int, sign: signal.Signals) -> None:
    try:
        os.killpg(group, sign)
    except ProcessLookupError:
        return
    except PermissionError:  # the group runs as root, through sudo
        subprocess.run(["sudo", "-n", "kill", f"-{sign.value}", "--", f"-{group}"], check=False)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM (a CI system that cancels) unwind like Ctrl-C; once, since make passes on what it gets too."""

    def unwind(_number: int, _frame: Optional[FrameType]) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def as_root(arguments: Sequence[str], environment: Optional[Mapping[str, str]] = None) -> list[str]:
    """The command that runs a program as root.

    :param environment: what sudo shall pass on; root keeps its own home directory.
    :raises DriftguardError: this user is not root and can't become it.
    """
    if os.geteuid() == 0:
        return list(arguments)
    _ask_for_sudo(arguments)
    if environment is None:
        return ["sudo", "-n", *arguments]
    kept = ",".join(sorted(name for name in environment if name.isidentifier() and name not in OWN_TO_ROOT))
    return ["sudo", "-n", f"--preserve-env={kept}", "env", f"PATH={environment['PATH']}", *arguments]


def _ask_for_sudo(arguments: Sequence[str]) -> None:
    if shutil.which("sudo") is None:
        raise DriftguardError(
            " ".join(arguments[:3]), "root, or a user with sudo", f"user id {os.geteuid()} and no sudo on this machine",
            "run the same command as root, or install sudo and allow this user to use it")
    quiet = [] if sys.stdin is not None and sys.stdin.isatty() else ["-n"]
    if subprocess.run(["sudo", *quiet, "-v"], check=False).returncode != 0:
        raise DriftguardError(
            " ".join(arguments[:3]), "root, or a user with sudo",
            "sudo refused, or wants a password and there is no terminal",
            "run the same command as root, or in a terminal, or allow this user sudo without a password")
