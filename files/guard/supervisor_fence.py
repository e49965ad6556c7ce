# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The fence: what an instance does, by its host's record and its fleet's. All cases are in contract.json."""

from __future__ import annotations

import json
import os

import version_guard as guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional, Tuple

STARTING, RUNNING, FENCED = "starting", "running", "fenced"
NOT_MOUNTED, ALLOWED, NOT_ALLOWED = "not mounted", "allowed", "not allowed"
MISSING, UNREADABLE, UNREACHABLE = "missing", "unreadable", "unreachable"
RUN, PARK, WAIT, HOLD = "run", "park", "wait", "hold"
LOOK_SECONDS = 0.5


def decide(before: str, host: str, fleet: str) -> Tuple[str, List[str]]:
    """What to do next, and what to report.

    :param before: starting until the first admission, then running, or fenced after a park.
    :param host: how the host's record judges this release; :param fleet: how the fleet's does.
    :returns: run, park, wait (start nothing yet) or hold (start nothing more); and the problems.
    """
    problems = ["host record " + host] if host in (MISSING, UNREADABLE) else []
    if fleet in (MISSING, UNREADABLE, UNREACHABLE):
        problems.append("fleet record " + fleet)
    if NOT_ALLOWED in (host, fleet):
        return PARK, problems
    if before == FENCED:
        lifted = fleet == ALLOWED and host in (ALLOWED, NOT_MOUNTED)
        return (RUN if lifted else PARK), problems
    if fleet == UNREACHABLE:
        return (WAIT if before == STARTING else HOLD), problems
    return RUN, problems


def after(then: str, before: str) -> str:
    """What counts as before, once something was decided."""
    return {RUN: RUNNING, HOLD: RUNNING, PARK: FENCED}.get(then, before)


def judge_fleet(data: Optional[bytes], fleet: str, own: Optional[str]) -> str:
    """How the fleet's record judges a release.

    :param data: as Redis has it, None where there is none.
    :param own: "<release>:<sha>" of the image, None where no image file says it: then nothing allows it.
    """
    if data is None:
        return MISSING
    try:
        allowed = guard.parse_record(data)
        named = json.loads(data.decode("utf-8"))["fleet"]
    except (ValueError, RecursionError):
        return UNREADABLE
    if named != fleet:
        return UNREADABLE
    return ALLOWED if own in allowed else NOT_ALLOWED


def own_release(image_file: str) -> Optional[str]:
    """"<release>:<sha>" as the image file says; None without a readable one."""
    image, _problem = guard.load(image_file, guard.parse_image)
    return ":".join(image) if image else None


class HostRecord:
    """This host's record, read again whenever its file changed.

    :param directory: where it has to be; None where no host record is mounted.
    """

    def __init__(self, directory: Optional[str], own: Optional[str]) -> None:
        self.verdict = NOT_MOUNTED
        self._path = None if directory is None else directory + "/" + guard.RECORD_FILES[0]
        self._own = own
        self._seen: object = ()
        self.look()

    def look(self) -> bool:
        """Look at the file; whether the verdict is another one now."""
        if self._path is None:
            return False
        # The signature first: a file that is replaced while it is read shows another one at the next look.
        seen = _signature(self._path)
        if seen == self._seen:
            return False
        self._seen, before = seen, self.verdict
        self.verdict = self._judge(self._path)
        return self.verdict != before

    def _judge(self, path: str) -> str:
        allowed, problem = guard.load(path, guard.parse_record)
        if allowed is None:
            return MISSING if problem == "missing" else UNREADABLE
        return ALLOWED if self._own in allowed else NOT_ALLOWED


def _signature(path: str) -> Tuple[object, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno,)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_ctime_ns
