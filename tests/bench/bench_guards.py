# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the start guards cost, against interpreters that do nothing.

Rounds alternate and medians are compared. Processor time is measured, which for programs that wait for nothing is
their duration on an idle machine, and on a busy one still is. ``--check`` stops where the worker would begin, with the
image file and the host record read and compared.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from typing import Any, Optional

from contract.guard_cases import environment_of, write_files
from contract.guard_programs import Guard, guard_command, open_workshop

ROUNDS = 60
RATIO_GOAL = 3.0
MILLISECONDS_GOAL = 2.0
CASE = {"record": "settled on new"}
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
GUARDS = {
    "python": Guard("python", (PYTHON, "-IS"), "version_guard.py"),
    **{name: Guard(name, (path, *words[1:]), "version_guard.sh")
       for name, words in {"dash": ["dash"], "busybox": ["busybox", "sh"]}.items() if (path := shutil.which(words[0]))},
}


def run() -> list[dict[str, Any]]:
    """Measure; one row a guard: name, ratio (to the bare interpreter) or ms (more than it), goal, ok."""
    for shop in open_workshop():
        files = write_files(CASE, shop.place())
        bare = {name: [*guard.interpreter, "-c", ":"] for name, guard in GUARDS.items() if not guard.is_python}
        bare["python"] = [PYTHON, "-S", "-c", "pass"]
        guarded = {name: guard_command(guard, shop.guards, files, ["--check"]) for name, guard in GUARDS.items()}
        times = _medians({**{f"{name} bare": command for name, command in bare.items()}, **guarded})
    rows = [_row("python guard / python3 -S -c pass", times["python"] / times["python bare"], None, RATIO_GOAL)]
    for name in (name for name in GUARDS if name != "python"):
        more = (times[name] - times[f"{name} bare"]) * 1000
        rows.append(_row(f"sh guard - sh -c : ({name})", None, more, MILLISECONDS_GOAL))
    return rows


def _row(name: str, ratio: Optional[float], milliseconds: Optional[float], goal: float) -> dict[str, Any]:
    ok = (ratio is None or ratio <= goal) and (milliseconds is None or milliseconds <= goal)
    return {"name": name, "ratio": ratio, "ms": milliseconds, "goal": goal, "ok": ok}


def _medians(commands: dict[str, list[str]]) -> dict[str, float]:
    """Median seconds of each command, the rounds taking turns."""
    environment = environment_of({})
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _round in range(ROUNDS):
        for name, command in commands.items():
            times[name].append(_seconds(command, environment))
    return {name: statistics.median(taken) for name, taken in times.items()}


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
    process = os.posix_spawn(command[0], command, environment, file_actions=actions)
    _process, status, usage = os.wait4(process, 0)
    assert status == 0, command
    return usage.ru_utime + usage.ru_stime


def show(row: dict[str, Any]) -> str:
    """One row as a person reads it."""
    value = f"{row['ratio']:6.2f} x " if row["ratio"] is not None else f"{row['ms']:6.2f} ms"
    unit = "x" if row["ratio"] is not None else "ms"
    return f"{row['name']:<36} {value}  goal at most {row['goal']:g} {unit}  {'ok' if row['ok'] else 'MISSED'}"


def test_guards_cost_little() -> None:
    rows = run()
    print()
    print("\n".join(map(show, rows)))
    assert all(row["ok"] for row in rows)


if __name__ == "__main__":
    measured = run()
    print("\n".join(map(show, measured)))
    sys.exit(0 if all(row["ok"] for row in measured) else 1)
