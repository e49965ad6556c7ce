# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line per step of a rollout, as the module writes it on the host and a person reads it on the controller. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .untrusted import SECONDS_OF_A_DAY, clean

STOPPING = "stopping"
STARTING = "starting"
HEALTHY = "healthy"
VERIFIED = "verified"
EVENTS = (STOPPING, STARTING, HEALTHY, VERIFIED)
MAX_LINE = 300
MAX_NAME = 100


@dataclass(frozen=True)
class Step:
    """What happened to one container.

    :param seconds: since the rollout of its host began.
    """

    event: str
    service: str
    container: str
    seconds: float


def written(step: Step) -> str:
    """A step as its line in the progress file, with its end."""
    names = (clean(name, MAX_NAME) for name in (step.service, step.container))
    return "\t".join((step.event, *names, f"{step.seconds:.1f}")) + "\n"


def parsed(line: str) -> Optional[Step]:
    """A line of a progress file, None when it isn't one: a host may send anything."""
    parts = line.split("\t") if len(line) <= MAX_LINE else []
    if len(parts) != 4 or parts[0] not in EVENTS:
        return None
    try:
        seconds = float(parts[3])
    except ValueError:
        return None
    if not 0 <= seconds <= SECONDS_OF_A_DAY:
        return None
    return Step(parts[0], clean(parts[1], MAX_NAME), clean(parts[2], MAX_NAME), seconds)


def shown(host: str, step: Step, width: int = 0) -> str:
    """A step for a person.

    :param width: of the longest host name, so that lines of several hosts stand below each other.
    """
    return f"{host:<{width}}  {step.service:<14}  {step.container:<34}  {step.event:<8}  {step.seconds:6.1f} s"
