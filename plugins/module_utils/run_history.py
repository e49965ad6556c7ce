# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of runs: an evidence record made short for the audit stream, and what is there read back for people.

Whoever may write to Redis may write into the stream. So what comes back is shown and never acted upon.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Mapping, Sequence

from .errors import DriftguardError
from .module_base import Result
from .names import RELEASE_PATTERN, SHA_PATTERN
from .redis_gateway import gateway_of
from .redis_history import EXTRA, MAX_RUNS, append_run, read_runs
from .release_info import TIME_PATTERN
from .untrusted import clean, digits

GOOD = ("good", "rolled back")
MOST_SECONDS = 10**7
MAX_CELL = 60
KEYS = ("run", "by", "action", "message", "release_id", *EXTRA)
_FORM = "%Y-%m-%dT%H:%M:%SZ"
_WORD = re.compile(r"^[a-z][a-z ]{0,29}\Z")
_TITLES = ("STARTED", "BY", "ACTION", "RELEASE", "RESULT", "SECONDS", "HOSTS", "BAD")


def entry_of(record: Mapping[str, Any]) -> dict[str, str]:
    """An evidence record in short: text by key, the keys of :data:`KEYS`. Pure.

    :param record: as ``files/evidence.schema.json`` describes it.
    """
    run, release, hosts = record["run"], record["release"] or {}, record["hosts"]
    bad = sorted(host for host, outcome in hosts.items() if outcome["status"] not in GOOD)
    return {
        "run": str(run.get("id") or ""), "by": str(run.get("by") or ""), "action": str(run.get("action") or ""),
        "message": str(record["message"]), "release_id": str(release.get("release_id") or ""),
        "sha": str(release.get("sha") or run.get("expected_sha") or ""), "result": str(record["result"]),
        "seconds": str(_seconds(str(run.get("started") or ""), str(record["ended"]))), "hosts": str(len(hosts)),
        "bad": ",".join(bad), "left_out": ",".join(record["left_out"]),
        "durations": json.dumps(_durations(hosts), sort_keys=True, separators=(",", ":"))}


def _seconds(started: str, ended: str) -> int:
    """How long a run took, by the controller's clock, which has both times."""
    try:
        taken = datetime.strptime(ended, _FORM) - datetime.strptime(started, _FORM)
    except ValueError:
        return 0
    return max(0, min(int(taken.total_seconds()), MOST_SECONDS))


def _durations(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds per phase of the slowest host."""
    longest: dict[str, float] = {}
    for outcome in hosts.values():
        phases = (outcome.get("rollout") or {}).get("durations")
        for phase, seconds in (phases if isinstance(phases, dict) else {}).items():
            if isinstance(seconds, (int, float)) and not isinstance(seconds, bool):
                longest[phase] = max(longest.get(phase, 0.0), float(seconds))
    return longest


def run_of(stored: Mapping[str, str]) -> dict[str, Any]:
    """A run as a module returns it; what isn't in its form is empty, or 0. Pure.

    :param stored: an entry of the stream, untrusted.
    """
    seconds, hosts = (digits(stored.get(key, "")) or 0 for key in ("seconds", "hosts"))
    return {
        "run": clean(stored.get("run", "")), "by": clean(stored.get("by", "")),
        "action": _like(_WORD, stored.get("name", "")), "result": _like(_WORD, stored.get("result", "")),
        "message": clean(stored.get("reason", ""), 500),
        "release_id": _like(RELEASE_PATTERN, stored.get("to", "")), "sha": _like(SHA_PATTERN, stored.get("sha", "")),
        "started": _like(TIME_PATTERN, stored.get("started", "")), "ended": _like(TIME_PATTERN, stored.get("at", "")),
        "seconds": seconds, "hosts": hosts, "bad": _names(stored.get("bad", "")),
        "left_out": _names(stored.get("left_out", ""))}


def _like(pattern: Any, text: str) -> str:
    return text if pattern.match(text) else ""


def _names(text: str) -> list[str]:
    return [clean(name) for name in text.split(",") if name]


def table(runs: Sequence[Mapping[str, Any]], fleet: str) -> list[str]:
    """Runs as lines for people, newest first. Pure."""
    if not runs:
        return [f"No run of fleet {fleet} is in the audit"]
    cells = [_cells(run) for run in runs]
    widths = [max(len(line[place]) for line in [_TITLES, *cells]) for place in range(len(_TITLES))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in [_TITLES, *cells]]


def _cells(run: Mapping[str, Any]) -> tuple[str, ...]:
    texts = (
        run["started"], run["by"], run["action"], run["sha"][:7], run["result"], str(run["seconds"]), str(run["hosts"]),
        ", ".join(run["bad"]))
    return tuple(clean(text or "-", MAX_CELL) for text in texts)


def run_history(module: Any) -> Result:
    """What worker_history does.

    :raises DriftguardError: Redis doesn't answer, or an option isn't in its form.
    """
    fleet, last = module.params["fleet"], module.params["last"]
    if not 1 <= last <= MAX_RUNS:
        raise DriftguardError("option last", f"1 to {MAX_RUNS}", str(last), "say how many runs to show")
    if module.params["state"] == "appended":
        return _append(module, fleet)
    runs = [run_of(stored) for stored in read_runs(gateway_of(module), fleet, last)]
    return Result(False, {"runs": runs, "table": table(runs, fleet)})


def _append(module: Any, fleet: str) -> Result:
    entry = module.params["entry"]
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in KEYS) or digits(
            entry["seconds"]) is None:
        raise DriftguardError(
            "option entry", f"text for each of {', '.join(KEYS)}", "something else",
            "hand over what worker_evidence returned as entry")
    if module.check_mode:
        return Result(True, {"at": None})
    return Result(True, {"at": append_run(gateway_of(module), fleet, entry)})
