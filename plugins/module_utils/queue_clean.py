# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_queue_clean does: chooses jobs, writes them to a file, and only then takes them out.

======================================  ================================================================
killed                                  then there is
======================================  ================================================================
before the file has its name            nothing, or a hidden ``.<name>.…`` beside it; no job has gone
between the file and the last removal   the file with all that were chosen; the next run, with another file,
                                        takes what is left
======================================  ================================================================
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from .errors import DriftguardError
from .host_files import check_new_file, new_file, read_text
from .module_base import FailedResult, Result
from .queue_backup import backup_line
from .queue_select import (
    Criteria,
    Evidence,
    ids_of_file,
    judge,
    parse_age,
    parse_field,
    parse_ids,
    refuse_all_gone,
    since_of,
)
from .queues import FINISHED, PLACES, Queue, checked_name, prefix_of
from .redis_gateway import gateway_of
from .redis_queues import Entry, RedisQueues
from .untrusted import clean, decode, iso_time

SAMPLE = 20
FILE_MODE = 0o600
LAST_DATE = 10 ** 14  # milliseconds; Python has no year 10000


@dataclass
class Chosen:
    """What was chosen, by place.

    :param counts: chosen, not to be judged, and beyond the limit.
    :param total: jobs in these places.
    """

    jobs: dict[str, list[Entry]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    evidence: Counter[Optional[bool]] = field(default_factory=Counter)
    total: int = 0


@dataclass
class Run:
    """One run of the module: what is asked of which queue, and what came of it."""

    queues: RedisQueues
    queue: Queue
    state: str
    criteria: Criteria
    limit: int
    now: int
    kept: Counter[str] = field(default_factory=Counter)
    removed: int = 0


def run_queue_clean(module: Any) -> Result:
    """Do what the module's options ask.

    :raises DriftguardError: an option can't be meant, Redis doesn't answer, or the file can't be written.
    """
    options = module.params
    criteria = criteria_of(options)
    prefix = prefix_of(options["fleet"], options["prefix"])
    queue = Queue(prefix, checked_name("queue", options["queue"]))
    _check_limit(options["limit"])
    dest = Path(options["dest"]) if options["confirm"] else None
    if dest:
        check_new_file(dest)
    queues = RedisQueues(gateway_of(module), prefix)
    run = Run(
        queues, queue.dead if options["state"] == "dead" else queue, options["state"], criteria, options["limit"],
        queues.now())
    chosen = choose(run)
    if criteria.evidence and not options["evidence"]["all_gone"]:
        refuse_all_gone(chosen.evidence[True], chosen.evidence[False], criteria.evidence.existing)
    if dest is None or module.check_mode:
        return _foretell(run, chosen, dest)
    return _remove(run, chosen, dest)


def criteria_of(options: Mapping[str, Any]) -> Criteria:
    """The criteria of the module's options.

    :raises DriftguardError: one of them can't be meant.
    """
    age, ids, evidence = options["older_than"], options["job_ids"], options["evidence"]
    if options["job_ids_file"] is not None:
        ids = ids_of_file(options["job_ids_file"], read_text(Path(options["job_ids_file"])))
    elif ids is not None:
        ids = parse_ids("job_ids", ids)
    return Criteria(
        None if age is None else parse_age("older_than", age), options["job_name"], options["job_id"], ids,
        None if evidence is None else _evidence(evidence))


def choose(run: Run) -> Chosen:
    """Look through the places where such jobs are, the oldest first."""
    chosen = Chosen(total=run.queues.count(run.queue, PLACES[run.state]))
    for place in PLACES[run.state]:
        until = None
        if place in FINISHED and run.criteria.seconds is not None:
            until = run.now - run.criteria.seconds * 1000
        for entry in run.queues.entries(run.queue, place, run.criteria.fields, until):
            _sort_in(run, chosen, place, entry)
    return chosen


def _sort_in(run: Run, chosen: Chosen, place: str, entry: Entry) -> None:
    since = since_of(place, entry.score, entry.fields)
    judged = judge(run.criteria, entry.id, entry.fields, since, run.now)
    chosen.evidence[judged.has_evidence] += 1
    if judged.chosen is None:
        chosen.counts["unjudged"] += 1
    elif judged.chosen and chosen.counts["chosen"] < run.limit:
        chosen.counts["chosen"] += 1
        # Of the fields only those that are shown: data may be large.
        shown = {key: value for key, value in (entry.fields or {}).items() if key != "data"}
        chosen.jobs.setdefault(place, []).append(Entry(entry.id, entry.depth, entry.score, shown))
    elif judged.chosen:
        chosen.counts["beyond"] += 1


# ``file``, not ``dest``, to which Ansible adds a ``state`` of its own; ``kept``, not ``skipped``, which is Ansible's
# word for a task that didn't run.
def _foretell(run: Run, chosen: Chosen, dest: Optional[Path]) -> Result:
    going: dict[str, list[Entry]] = {}
    for place, entries in chosen.jobs.items():
        for job in run.queues.inspect(run.queue, place, entries, contents=False):
            if job.reason:
                run.kept[job.reason] += 1
            else:
                going.setdefault(place, []).append(job.entry)
    count = sum(map(len, going.values()))
    if dest is None:
        message = f"{count} jobs would be removed; nothing was, since confirm isn't true"
    else:
        message = f"{count} jobs would be removed and written to {dest}"
    return _result(run, chosen, going, {"msg": message, "changed": bool(count and dest), "file": None})


def _remove(run: Run, chosen: Chosen, dest: Path) -> Result:
    marked: dict[str, list[tuple[Entry, bytes]]] = {}
    with new_file(dest, FILE_MODE) as file:
        for place, entries in chosen.jobs.items():
            for job in run.queues.inspect(run.queue, place, entries, contents=True):
                if job.reason:
                    run.kept[job.reason] += 1
                else:
                    file.stream.write(backup_line(run.queue, place, job))
                    marked.setdefault(place, []).append((job.entry, job.mark))
        file.wanted = bool(marked)
    gone: dict[str, list[Entry]] = {}
    for place, jobs in marked.items():
        try:
            _take_out(run, place, jobs, gone)
        except DriftguardError as error:
            values = {"removed": run.removed, "file": str(dest), "kept": dict(run.kept)}
            raise FailedResult(_cut_off(error, run, dest), values, changed=run.removed > 0) from error
    message = f"{run.removed} jobs removed" + (f", all of them are in {dest}" if marked else "; no file was written")
    return _result(run, chosen, gone, {
        "msg": message, "changed": run.removed > 0, "file": str(dest) if marked else None})


def _take_out(run: Run, place: str, jobs: Sequence[tuple[Entry, bytes]], gone: dict[str, list[Entry]]) -> None:
    entries = iter(entry for entry, _mark in jobs)
    for answers in run.queues.remove(run.queue, place, jobs):
        for answer, entry in zip(answers, entries):
            if answer:
                run.kept[answer] += 1
            else:
                run.removed += 1
                gone.setdefault(place, []).append(entry)


def _cut_off(error: DriftguardError, run: Run, dest: Path) -> DriftguardError:
    return DriftguardError(
        error.subject, error.expected, f"{error.found}; {run.removed} jobs were removed before, all of them in {dest}",
        f"{error.remedy}; then run again with another dest: it takes what is left")


def _result(run: Run, chosen: Chosen, going: Mapping[str, list[Entry]], values: dict[str, Any]) -> Result:
    count = sum(map(len, going.values()))
    sample = [_shown(place, entry) for place, entries in going.items() for entry in entries][:SAMPLE]
    lines = "".join(f"- {one['id']}  {one['name']}  {one['since'] or 'unknown age'}\n" for one in sample)
    more = f"- … {count - len(sample)} more\n" if count > len(sample) else ""
    head = f"{run.queue.shown}, {run.state}:"
    changed = values.pop("changed")
    return Result(changed, {
        "queue": run.queue.shown, "state": run.state, "total": chosen.total, "jobs": count, "removed": run.removed,
        "sample": sample, "kept": dict(run.kept), "unjudged": chosen.counts["unjudged"],
        "beyond_limit": chosen.counts["beyond"], **values,
    }, f"{head} {chosen.total} jobs\n{lines}{more}", f"{head} {chosen.total - count} jobs\n", "jobs")


def _shown(place: str, entry: Entry) -> dict[str, Any]:
    fields = entry.fields or {}
    since = since_of(place, entry.score, fields)
    return {
        "id": clean(decode(entry.id)),
        "name": clean(decode(fields.get("name") or b"")),
        "state": place,
        "since": iso_time(since / 1000) if since is not None and since < LAST_DATE else None,
    }


def _evidence(options: Mapping[str, Any]) -> Evidence:
    field_name = parse_field(options["field"])
    if options["existing_file"] is not None:
        path = options["existing_file"]
        return Evidence(field_name, ids_of_file(path, read_text(Path(path))))
    return Evidence(field_name, parse_ids("evidence, existing", options["existing"]))


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= 1_000_000:
        raise DriftguardError(
            "option limit", "from 1 to 1000000 jobs", str(limit), "give a number in between, and run again for more")
