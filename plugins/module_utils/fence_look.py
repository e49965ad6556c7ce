# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who of a fenced release has confirmed, as rows and as a table. Pure; a registration is a claim, and its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Collection, Sequence

from . import verdicts
from .record import Record, ReleaseRef
from .registrations import Registration, Snapshot
from .untrusted import clean

RUNNING = "RUNNING"
GONE = "GONE"
CUT_OFF = "CUT OFF"
MAX_CELL = 60
SHOWN_SILENT = 10

_VERDICTS = {
    "fenced": verdicts.FENCED, "draining": verdicts.DRAINING, "running": RUNNING, "starting": verdicts.STARTING,
}
_CONFIRMED = frozenset({verdicts.FENCED, GONE, CUT_OFF})
_FOUND = {
    verdicts.FENCED: "parked: it starts no job",
    verdicts.DRAINING: "starts no job; finishes what it has, for its drain time at most",
    RUNNING: "has not obeyed: it doesn't know the fence, or can't read the record",
    verdicts.STARTING: "is starting, and has not asked for the record yet",
    verdicts.UNKNOWN: "says neither its state nor its release as a worker does",
}
_TITLES = ("SERVICE", "INSTANCE", "HOST", "STATE", "HEARTBEAT", "VERDICT")


@dataclass(frozen=True)
class Instance:
    """One instance of a fenced release.

    :param state: as it registered; empty when it is gone.
    :param heartbeat_at: ISO 8601 UTC, Redis's time.
    :param verdict: FENCED, DRAINING, RUNNING, STARTING, UNKNOWN, GONE or CUT OFF.
    """

    service: str
    instance: str
    host: str
    state: str
    heartbeat_at: str
    verdict: str
    found: str = ""
    remedy: str = ""

    @property
    def member(self) -> str:
        """Its name in the index."""
        return f"{self.service}:{self.instance}"

    @property
    def confirmed(self) -> bool:
        """Whether it can start no job any more."""
        return self.verdict in _CONFIRMED

    def to_dict(self) -> dict[str, str]:
        """As a documented return value."""
        return {name: str(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass
class Watched:
    """The instances of fenced releases, from look to look.

    :param bad: the fenced releases.
    :param cut: instances whose Redis user was taken away.
    """

    bad: Sequence[ReleaseRef]
    seen: dict[str, Instance] = field(default_factory=dict)
    dead: tuple[str, ...] = ()
    cut: frozenset[str] = frozenset()

    def look(self, snapshot: Snapshot) -> None:
        """Take in what is registered now. An instance that was seen and isn't there any more is gone."""
        ids, shas = {one.release_id for one in self.bad}, {one.sha for one in self.bad}
        live = {
            one.member: _instance(one) for one in snapshot.registrations
            # What says neither may be of any release.
            if one.release_id in ids or one.git_sha in shas or not (one.release_id or one.git_sha)}
        for member, before in self.seen.items():
            if member not in live:
                live[member] = _gone(before, member in self.cut)
        self.seen = live
        self.dead = tuple(clean(member) for member in snapshot.dead if member not in live)

    @property
    def rows(self) -> list[Instance]:
        """All of them, those that have not confirmed first."""
        return sorted(self.seen.values(), key=lambda one: (one.confirmed, one.host, one.service, one.instance))

    @property
    def unconfirmed(self) -> list[Instance]:
        """Those that may still start jobs, or still work."""
        return [one for one in self.rows if not one.confirmed]


def fence_table(watched: Watched, record: Record, is_prediction: bool) -> list[str]:
    """Lines for people: each instance; under each that has not confirmed, what was found and the remedy."""
    rows = watched.rows
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[place]) for line in [_TITLES, *cells]) for place in range(len(_TITLES))]
    lines = [f"Fenced: {', '.join(f'{one.release_id} ({one.sha[:7]})' for one in watched.bad)}",
             f"Allowed: {', '.join(one.release_id for one in record.allowed)} ({record.phase})", "",
             _line(_TITLES, widths)]
    for row, line in zip(rows, cells):
        lines.append(_line(line, widths))
        if not row.confirmed and not is_prediction:
            lines += [f"    found:  {row.found}", f"    remedy: {row.remedy}"]
    return [*lines, "", *_sum(watched, is_prediction)]


def silent_ones(watched: Watched) -> str:
    """Those that have not confirmed, in one line; empty when all have."""
    names = [f"{one.member} on {one.host or 'an unknown host'} [{one.verdict}]" for one in watched.unconfirmed]
    more = f" and {len(names) - SHOWN_SILENT} more" if len(names) > SHOWN_SILENT else ""
    return f"not confirmed: {', '.join(names[:SHOWN_SILENT])}{more}" if names else ""


def _sum(watched: Watched, is_prediction: bool) -> list[str]:
    open_ones = len(watched.unconfirmed)
    lines = []
    if is_prediction:
        lines.append(f"{len(watched.seen)} instances would be fenced")
    elif open_ones:
        lines.append(f"[UNCONFIRMED] {open_ones} of {len(watched.seen)} instances have not confirmed")
    else:
        lines.append(f"[OK] All {len(watched.seen)} instances are fenced or gone")
    if watched.dead:
        lines.append(
            f"{len(watched.dead)} more in the index without a live registration: gone, or cut off from Redis, where "
            "they can start no job")
    return lines


def _instance(one: Registration) -> Instance:
    verdict = _VERDICTS.get(one.state, verdicts.UNKNOWN)
    where = f" on {clean(one.host)}" if one.host else ""
    stop = f"docker stop {one.instance}" if one.container_id else f"process {one.pid or 'unknown'}"
    return Instance(
        one.service, one.instance, clean(one.host), one.state, one.heartbeat_at, verdict, _FOUND[verdict],
        "" if verdict in _CONFIRMED else f"stop it{where}: {stop}; then run the fence again")


def _gone(before: Instance, is_cut: bool) -> Instance:
    verdict, found = (CUT_OFF, "its Redis user was deleted") if is_cut else (GONE, "its registration ended")
    return replace(before, state="", verdict=verdict, found=found, remedy="")


def _cells(row: Instance) -> tuple[str, ...]:
    texts = (row.service, row.instance, row.host or "-", row.state or "-", row.heartbeat_at[:19] or "-")
    return (*(clean(text, MAX_CELL) for text in texts), f"[{row.verdict}]")


def _line(cells: Sequence[str], widths: Collection[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()
