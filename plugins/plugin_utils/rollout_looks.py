# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller asks of a host about a rollout that works there, and reads from its answer. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from ansible_collections.driftguard.workers.plugins.module_utils.attendance import BEAT, PID, PRIVATE, PROGRESS, STOP
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_progress import MAX_LINE

LINES = 200
GONE, STARTING, RUNNING, ENDED, DEAD = "gone", "starting", "running", "ended", "dead"
POLLS_PER_SECOND = 4
_JOB = re.compile(r"j[0-9]{1,20}\.[0-9]{1,20}")
_HEADER = "driftguard-look"

# A job file says {"started": ...} until the module's result replaces it, by rename. Waiting on the host for news costs
# the controller one command in two seconds, and still shows a line a quarter of a second after it was written.
_LOOK = f"""
cd %(directory)s 2>/dev/null || {{ echo {_HEADER} {GONE}; exit 0; }}; %(beat)s
i=0; while :; do s={STARTING}; job=; n=0;
for f in j[0-9]*; do case "$f" in *.tmp|*'*') ;; *) job=$f;
case "$(head -c 11 "$f")" in '{{"started":') s={RUNNING};; *) s={ENDED};; esac;; esac; done;
if [ $s = {RUNNING} ] && [ -s {PID} ] && ! kill -0 "$(cat {PID})" 2>/dev/null; then s={DEAD}; fi;
if [ -f {PROGRESS} ]; then n=$(wc -l < {PROGRESS}); fi;
if [ $s != {RUNNING} ] || [ $n -gt %(line)d ] || [ $i -ge %(polls)d ]; then break; fi;
i=$((i+1)); sleep 0.25; done;
echo {_HEADER} $s $job;
if [ -f {PROGRESS} ]; then tail -n +%(next)d {PROGRESS} | head -n {LINES} | cut -c 1-{MAX_LINE}; fi
"""


@dataclass(frozen=True)
class Look:
    """What a host answered.

    :param state: ``gone`` (no such directory), ``starting``, ``running``, ``ended`` with a result, or ``dead`` without.
    :param job: name of the job file, empty when there is none yet.
    :param lines: new lines of the progress file, whatever a host calls that.
    """

    state: str
    job: str
    lines: list[str]


def look_command(directory: str, number: int, line: int, wait: float, touch: bool = True) -> str:
    """The command of one look.

    :param directory: of the run, quoted for a shell.
    :param number: of this look; a new one is what keeps the rollout going.
    :param line: lines of the progress file that were read before.
    :param wait: seconds to wait on the host for news.
    :param touch: whether to say that the rollout is still wanted.
    """
    return " ".join(_LOOK.split("\n")).strip() % {
        "directory": directory, "line": line, "next": line + 1, "polls": int(wait * POLLS_PER_SECOND),
        "beat": f"echo {number} > {BEAT};" if touch else ""}


def stop_command(directory: str) -> str:
    """The command that stops a rollout at its next safe point, also one that hasn't made its directory yet."""
    return f"rm -f {directory}/{PRIVATE}; mkdir -p -m 700 {directory} && : > {directory}/{STOP}"


def parsed_look(output: str) -> Optional[Look]:
    """The answer to a look, None when it isn't one."""
    lines = output.split("\n")
    for number, line in enumerate(lines):
        words = line.split()
        if len(words) in (2, 3) and words[0] == _HEADER and words[1] in (GONE, STARTING, RUNNING, ENDED, DEAD):
            job = words[2] if len(words) == 3 and _JOB.fullmatch(words[2]) else ""
            return Look(words[1], job, [found for found in lines[number + 1:][:LINES] if found])
    return None
