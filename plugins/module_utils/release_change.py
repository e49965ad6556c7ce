# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and changes the release record of a fleet (in Redis) or of one host: the work of worker_release."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional

from .errors import DriftguardError
from .host_record import RECORD_FILE, HostRecord, HostRecords
from .lease_owner import user_at_host
from .module_base import Result
from .record import (
    ROLLING,
    SETTLED,
    Record,
    ReleaseRef,
    check_generation,
    release_ref,
    render_json,
    rolling,
    rolling_again,
    settled,
    without,
)
from .redis_gateway import RedisGateway, gateway_of
from .release_history import HistoryEntry, fenced_releases, fenced_since, previous_release
from .untrusted import clean, iso_time

READ = "read"
FENCED = "fenced"
FLEET = "fleet"


@dataclass(frozen=True)
class Asked:
    """What the caller wants: the module's options, checked.

    :param running: releases that something still runs, None when that isn't known.
    :param revisions: pairs of host and revision, for the history.
    :param fenced: releases to take out of a host's record, with ``target`` for when none is left.
    :param allowed: all that may run while it rolls; None where that follows from the record now.
    """

    fleet: str
    state: str
    target: ReleaseRef
    generation: int
    run: str
    running: Optional[tuple[ReleaseRef, ...]]
    revisions: tuple[tuple[str, str], ...]
    by: str
    token: str
    fenced: tuple[ReleaseRef, ...] = ()
    allowed: Optional[tuple[ReleaseRef, ...]] = None

    def of(self, current: Optional[Record]) -> Optional[Record]:
        """The record to have after the current one."""
        if self.state == FENCED:
            # A guard without a record lets nothing start: there is nothing to take out.
            return None if current is None else _fenced(current, self)
        if self.state == ROLLING and self.allowed is not None:
            return rolling_again(current, self.fleet, self.target, self.allowed, self.generation)
        if self.state == ROLLING:
            return rolling(current, self.fleet, self.target, self.generation, self.running)
        return settled(current, self.fleet, self.target, self.generation)


def run_release(module: Any) -> Result:
    """Read or change the record that the module's option ``scope`` names.

    :raises DriftguardError: it can't be read or written, or a later deploy was there.
    """
    options = module.params
    asked = None if options["state"] == READ else asked_of(options)
    if options["scope"] == FLEET:
        return _fleet(FleetRelease(gateway_of(module), options["fleet"]), asked, module)
    host = HostRecords(Path(options["root"]), options["fleet"])
    return read_host(host) if asked is None else change_host(host, asked, options["lock_wait"], module.check_mode)


def asked_of(options: Mapping[str, Any]) -> Asked:
    """The options as data.

    :raises DriftguardError: a release isn't one.
    """
    return Asked(
        options["fleet"], options["state"], _release("target", options["target"]), options["generation"],
        options["run"], _releases("running", options["running"]),
        tuple(sorted((clean(str(host)), clean(str(number))) for host, number in options["revisions"].items())),
        clean(options["by"] or user_at_host()), options["token"],
        tuple(_release("fenced", item) for item in options["fenced"]), _releases("allowed", options["allowed"]))


def read_host(host: HostRecords) -> Result:
    """A host's record, and what is wrong with it."""
    return host_result(host.read(), host.highest())


def host_result(found: HostRecord, seen: int) -> Result:
    """What is returned of a host's record that was only read. Pure.

    :param seen: the highest deployment number on that host.
    """
    return Result(False, _host_values(found, found.record, seen))


def change_host(host: HostRecords, asked: Asked, wait: float, check_mode: bool) -> Result:
    """Change a host's record; under its lock, and refusing every earlier deploy from now on.

    :param wait: seconds to wait for the lock.
    """
    if check_mode:
        return _host_plan(host, asked)[0]
    host.enter(asked.generation, asked.run)
    with host.lock(asked.run, wait):
        result, record = _host_plan(host, asked)
        if result.changed and record is not None:
            host.write(record)
    return result


class FleetRelease:
    """The record of a fleet in Redis, with its history."""

    def __init__(self, gateway: RedisGateway, fleet: str) -> None:
        self._gateway = gateway
        self._fleet = fleet
        self._record = gateway.record(fleet)
        self._history, self._unreadable = gateway.history(fleet)
        numbers = [entry.generation for entry in self._history[:1]]
        self._highest = max(gateway.generation(fleet), *numbers) if numbers else gateway.generation(fleet)

    def read(self) -> Result:
        """The record, the history and where a rollback would go."""
        return Result(False, self._values(self._record, self._history, self._highest))

    def change(self, asked: Asked, check_mode: bool) -> tuple[Result, int]:
        """Publish the record that was asked for, unless it is there already.

        :returns: the result, and how many subscribers heard of it (-1: publishing isn't allowed).
        """
        place = f"Redis {self._gateway.place}, key {self._fleet}:release"
        check_generation(place, asked.generation, self._highest)
        fence = self.fence_of(asked.target)
        if fence is not None and fence.generation >= asked.generation:
            raise fenced_since(place, asked.generation, _told(asked.target, fence))
        record, entry = asked.of(self._record), self._entry(asked)
        if record is None:
            raise DriftguardError(
                "option state", "rolling or settled, with scope fleet", asked.state, "use worker_fence for a fleet")
        changed = record != self._record or entry is not None
        heard = 0
        if changed and not check_mode:
            heard = self._gateway.publish_record(record, entry, asked.token, asked.generation)
        values = self._values(record, [*([entry] if entry else []), *self._history], asked.generation)
        header = f"{self._fleet}:release"
        return Result(changed, values, _text(self._record), _text(record), header), heard

    def _entry(self, asked: Asked) -> Optional[HistoryEntry]:
        """What the history lacks: a release, or other revisions of it, that this settles."""
        newest = next((entry for entry in self._history if not entry.fenced), None)
        known = newest is not None and newest.release == asked.target and asked.revisions in ((), newest.revisions)
        # What was fenced and is settled again needs an entry that says so.
        if (known and self.fence_of(asked.target) is None) or asked.state != SETTLED:
            return None
        return HistoryEntry(
            asked.generation, asked.target, iso_time(self._gateway.time()), asked.by, asked.revisions)

    def _values(self, record: Optional[Record], history: list[HistoryEntry], seen: int) -> dict[str, Any]:
        before = previous_release(history, record.target if record else None)
        return {
            **_values(self._record, record), "generation_next": seen + 1,
            "history": [entry.as_result() for entry in history], "history_unreadable": self._unreadable,
            "previous": before.as_result() if before else None,
            "fenced": [release.as_result() for release in fenced_releases(history)],
        }

    def fence_of(self, release: ReleaseRef) -> Optional[HistoryEntry]:
        """The fence that a release is under, None when it isn't fenced."""
        return fenced_releases(self._history).get(release)


def _fleet(release: FleetRelease, asked: Optional[Asked], module: Any) -> Result:
    if asked is None:
        return release.read()
    fence = release.fence_of(asked.target)
    if fence is not None and asked.state == ROLLING:
        module.warn(f"{_told(asked.target, fence)}. It is asked for by name, so its workers run again.")
    result, heard = release.change(asked, module.check_mode)
    if heard < 0:
        module.warn(
            f"This Redis user may not publish on {asked.fleet}:release:events: workers learn of the new record at "
            f"their next heartbeat only. Grant it with ACL SETUSER … &{asked.fleet}:*")
    return result


def _told(release: ReleaseRef, fence: HistoryEntry) -> str:
    reason = f": {fence.reason}" if fence.reason else ""
    return f"Release {release.release_id} was fenced {clean(fence.at)} by {fence.by}{reason}"


def _fenced(current: Record, asked: Asked) -> Record:
    """A host's record without releases. It rolls until a deploy settles it, since what runs there is another thing."""
    left = without(current, asked.fenced, asked.generation, asked.target)
    return left if left == current else replace(left, phase=ROLLING)


def _host_plan(host: HostRecords, asked: Asked) -> tuple[Result, Optional[Record]]:
    host.check(asked.generation, asked.run)
    found = host.read()
    record = asked.of(found.record)
    changed = record is not None and (record != found.record or bool(found.problem))
    seen = max(host.highest(), asked.generation)
    header = f"{host.directory}/guard/{RECORD_FILE}"
    return Result(changed, _host_values(found, record, seen), _text(found.record), _text(record), header), record


def _host_values(found: HostRecord, record: Optional[Record], seen: int) -> dict[str, Any]:
    return {**_values(found.record, record), "problem": found.problem, "generation_next": seen + 1}


def _values(before: Optional[Record], record: Optional[Record]) -> dict[str, Any]:
    return {"before": before.as_result() if before else None, "record": record.as_result() if record else None}


def _text(record: Optional[Record]) -> str:
    return render_json(record) if record else ""


def _releases(option: str, values: Optional[Iterable[Mapping[str, Any]]]) -> Optional[tuple[ReleaseRef, ...]]:
    return None if values is None else tuple(_release(option, value) for value in values)


def _release(option: str, value: Mapping[str, Any]) -> ReleaseRef:
    release = release_ref(value["release_id"], value["sha"])
    if release is None:
        raise DriftguardError(
            f"option {option}", "a release_id of 12 and 12 hex digits, and the full SHA that it begins with",
            f"{clean(str(value['release_id']))!r} and {clean(str(value['sha']))!r}",
            "give release_id and sha as worker_image returns them")
    return release
