# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""What the fence decides, from what the host's record and the fleet's say: the table of docs/fence.md.

``files/guard/contract.json`` holds every combination; tests compare them all.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Decision", "Standing", "View", "decide"]


class View(str, Enum):
    """What one record says of this instance's release."""

    NOT_MOUNTED = "not mounted"
    ALLOWED = "allowed"
    NOT_ALLOWED = "not allowed"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNREACHABLE = "unreachable"


class Standing(str, Enum):
    """What an instance may do.

    ``WAIT``: not admitted yet. ``RUN``: take jobs. ``HOLD``: finish what it has and start no other. ``PARK``: the same,
    and close down.
    """

    WAIT = "wait"
    RUN = "run"
    HOLD = "hold"
    PARK = "park"


class Decision(NamedTuple):
    """A standing, and what is wrong with the records beside it."""

    standing: Standing
    problems: tuple[str, ...]


def decide(before: Standing, host: View, fleet: View) -> Decision:
    """What an instance may do from now on.

    :param before: what it might do so far; ``WAIT`` at the start.
    :param host: never unreachable, since it is a file.
    :param fleet: never "not mounted", since a worker without Redis has nothing to do.
    """
    return Decision(_standing(before, host, fleet), (*_problem("host", host), *_problem("fleet", fleet)))


def _standing(before: Standing, host: View, fleet: View) -> Standing:
    if View.NOT_ALLOWED in (host, fleet):
        return Standing.PARK
    if before is Standing.PARK:
        # Only a record that allows lifts a fence, never one that is gone.
        lifted = fleet is View.ALLOWED and host in (View.ALLOWED, View.NOT_MOUNTED)
        return Standing.RUN if lifted else Standing.PARK
    if fleet is View.UNREACHABLE:
        return Standing.WAIT if before is Standing.WAIT else Standing.HOLD
    return Standing.RUN


def _problem(name: str, view: View) -> tuple[str, ...]:
    wrong = view in (View.MISSING, View.UNREADABLE, View.UNREACHABLE)
    return (f"{name} record {view.value}",) if wrong else ()
