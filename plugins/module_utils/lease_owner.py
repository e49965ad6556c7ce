# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process a deployment lease belongs to, and whether that has certainly ended. Reads /proc."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

PROC = Path("/proc")
PLAYBOOK = "ansible-playbook"
MAX_PID = 2 ** 31 - 1
ENDED = "ZX"  # a zombie that nobody has reaped runs no more


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it: its start in clock ticks since boot tells it from a later one with its number."""

    parent: int
    state: str
    start: str


@dataclass(frozen=True)
class Owner:
    """Who takes a lease.

    :param name: for people, such as ``alice@ci1``.
    :param pid: process that stands for the deploy, 0 when there is none to watch; with its start.
    :param machine: boot and process table that the pid belongs to.
    """

    name: str
    host: str
    run: str
    pid: int
    pid_start: str
    machine: str


def this_owner(name: str, run: str, pid: Optional[int]) -> Owner:
    """The owner of a lease taken by this process.

    :param name: empty for user@host.
    :param pid: the process to watch; None to look for the ansible-playbook that started this one, 0 for none.
    """
    host = socket.gethostname()
    watched = playbook_pid() if pid is None else pid
    process = process_of(watched)
    name = name or user_at_host()
    if process is None:
        return Owner(name, host, run, 0, "", this_machine())
    return Owner(name, host, run, watched, process.start, this_machine())


def is_gone(machine: str, pid: int, pid_start: str) -> bool:
    """Whether a lease's process has certainly ended: it was in this process table and is no more.

    False whenever that can't be told (another machine, container or boot, no pid, no /proc): then only time ends it.
    """
    if not (machine and pid_start and 1 <= pid <= MAX_PID) or machine != this_machine():
        return False
    process = process_of(pid)
    if process is None:
        return not _exists(pid)
    return process.start != pid_start or process.state in ENDED


def this_machine() -> str:
    """Names this boot of this machine and this process table, empty where that isn't known.

    The boot id alone would not do: containers share it, and each has process numbers of its own.
    """
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except (OSError, ValueError):
        return ""


def playbook_pid() -> int:
    """The ansible-playbook that this process descends from, 0 for none.

    Its forks, one per task, look the same and end with their task: the outermost of an unbroken line is the run itself.
    """
    found, pid = 0, os.getpid()
    for _generation in range(64):
        process = process_of(pid)
        if process is None:
            break
        if _is_playbook(pid):
            found = pid
        elif found:
            break
        pid = process.parent
    return found


def process_of(pid: int) -> Optional[Process]:
    """A process by its number, None when there is none or /proc doesn't show it."""
    if not 1 <= pid <= MAX_PID:
        return None
    try:
        text = (PROC / str(pid) / "stat").read_bytes().decode("ascii", "replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, so count from the last one; proc(5) gives the fields.
    fields = text.rpartition(")")[2].split()
    return Process(int(fields[1]), fields[0], fields[19]) if len(fields) > 19 else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_playbook(pid: int) -> bool:
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return False
    return any(os.path.basename(word) == PLAYBOOK for word in words[:3])


def user_at_host() -> str:
    """Who runs this, for people."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
