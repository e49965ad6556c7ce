# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""What only the kernel can do for a supervisor: prctl(2), and who descends from whom."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Tuple

    _Process = Tuple[int, int, int, int, bytes]  # pid, parent, process group, session, state

_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36


def die_with_parent() -> bool:
    """Let this process get SIGKILL when the thread that started it ends; whether the kernel agreed."""
    return _prctl(_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own one ends; whether the kernel agreed, or it was so before."""
    return _prctl(_SET_CHILD_SUBREAPER, 1) or os.getpid() == 1


def _prctl(option: int, value: int) -> bool:
    try:
        import ctypes  # noqa: PLC0415 - some images have a Python without it

        return int(ctypes.CDLL(None).prctl(option, *(ctypes.c_ulong(number) for number in (value, 0, 0, 0)))) == 0
    except (ImportError, OSError, AttributeError, TypeError):
        return False


def descendants(ancestor: int, session: int) -> List[Tuple[int, int]]:
    """Pid and process group of what descends from a process or is in a session of its, zombies left out."""
    children: Dict[int, List[_Process]] = {}
    found = []
    for name in os.listdir("/proc"):
        for process in _process(name):
            children.setdefault(process[1], []).append(process)
            if process[3] == session:
                found.append(process)
    parents = [ancestor]
    while parents:
        for process in children.pop(parents.pop(), []):
            parents.append(process[0])
            found.append(process)
    return sorted({(pid, group) for pid, _parent, group, _session, state in found if state not in b"ZX"})


def _process(name: str) -> List[_Process]:
    try:
        pid = int(name)
        with open("/proc/" + name + "/stat", "rb") as file:
            # The name may hold anything, parentheses and newlines too.
            fields = file.read().rpartition(b")")[2].split()
        return [(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[0])]
    except (OSError, IndexError, ValueError):
        return []  # no process, or it ended meanwhile


def send(pid: int, number: int, group: bool = False) -> None:
    """Send a signal; one that is gone, or may not be sent to, is left alone."""
    with suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, number)
