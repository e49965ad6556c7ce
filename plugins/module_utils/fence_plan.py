# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fence does: which releases are meant, and the record without them. Pure.

=====================  ==================  ==========================================================================
record now             fence               record then
=====================  ==================  ==========================================================================
settled X              X                   settled on the newest release of the history that isn't fenced
settled X              X, no history       rolling NOTHING: the whole fleet parks
rolling T {A, T}       T                   settled A
rolling T {A, T}       A                   settled T
rolling T {A, B, T}    T                   rolling B {A, B}
any                    one not allowed     the same; the history says from now on that a rollback must not go to it, and
                                           says it again where a deploy has begun since, which might be on its way to it
none                   any                 what live registrations run, without it; else as for settled X
=====================  ==================  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Iterable, Optional, Sequence

from .errors import DriftguardError
from .names import RELEASE_PATTERN
from .record import MAX_ALLOWED, NOTHING, ROLLING, Record, ReleaseRef, release_ref, without
from .registrations import Registration
from .release_history import ALLOWED, PAST, TARGET, HistoryEntry, previous_release
from .untrusted import MAX_NUMBER, clean

MIN_SHA_PREFIX = 7
SHOWN_RELEASES = 8


@dataclass(frozen=True)
class Known:
    """What is known of a fleet's releases.

    :param history: newest first.
    :param running: releases that live registrations claim.
    """

    record: Optional[Record]
    history: Sequence[HistoryEntry]
    running: tuple[ReleaseRef, ...]

    @property
    def releases(self) -> list[ReleaseRef]:
        """Every release there is, those that are allowed first."""
        allowed = self.record.allowed if self.record else ()
        every = [*allowed, *(entry.release for entry in self.history), *self.running]
        return [release for release in dict.fromkeys(every) if release != NOTHING]


@dataclass(frozen=True)
class FencePlan:
    """What is to be published.

    :param bad: the releases that are fenced.
    :param record: the fleet's record then.
    :param number: deployment number to publish with; above all others where the record changes, so that a deploy that
        is under way is overtaken.
    :param entries: what the history gets.
    """

    bad: tuple[ReleaseRef, ...]
    record: Record
    number: int
    entries: tuple[HistoryEntry, ...]

    @property
    def changed(self) -> bool:
        """Whether there is anything to publish."""
        return bool(self.entries)


def running_releases(registrations: Iterable[Registration]) -> tuple[ReleaseRef, ...]:
    """The releases that live registrations claim, well-formed ones."""
    found = (release_ref(one.release_id, one.git_sha) for one in registrations)
    return tuple(dict.fromkeys(release for release in found if release is not None))


def meant(asked: str, known: Known) -> tuple[ReleaseRef, ...]:
    """The releases that a person means.

    :param asked: a release id, a SHA or at least seven characters of one; empty for the record's target, or for what
        was fenced last where nothing was published since: running a fence again must not fence the next release.
    :raises DriftguardError: none is meant, or more than one commit.
    """
    text = asked.strip().lower()
    if not text:
        return _target(known)
    if RELEASE_PATTERN.match(text):
        found = [release for release in known.releases if release.release_id == text]
    elif MIN_SHA_PREFIX <= len(text) <= 40 and all(letter in "0123456789abcdef" for letter in text):
        found = [release for release in known.releases if release.sha.startswith(text)]
    else:
        raise _unknown(asked, "no such text", known)
    if len({release.sha for release in found}) != 1:
        raise _unknown(asked, f"it fits {len({release.sha for release in found})} commits", known)
    return tuple(found)


def plan_fence(
    fleet: str, known: Known, bad: Sequence[ReleaseRef], highest: int, note: tuple[str, str, str],
) -> FencePlan:
    """The record without the bad releases; see the table above.

    :param highest: the highest deployment number that is known.
    :param note: when (ISO 8601), who and why, for the history.
    :raises DriftguardError: there is no higher number.
    """
    current = known.record or _assumed(fleet, known.running, bad)
    at, by, reason = note
    entries = tuple(
        HistoryEntry(0, release, at, by, (), kind, reason)
        for release, kind in ((release, _kind(release, known, current, highest)) for release in bad) if kind)
    fallback = previous_release([*entries, *known.history], None)
    record = without(current, bad, highest + 1, fallback.release if fallback else None)
    number = highest + 1 if record != known.record else max(highest, 1)
    if number > MAX_NUMBER:
        raise DriftguardError(
            f"fleet {fleet}, deployment number", f"less than {MAX_NUMBER}", str(highest),
            f"find out who wrote it; SET {fleet}:generation to the last deploy's, or mend the record")
    return FencePlan(
        tuple(bad), record, number,
        tuple(HistoryEntry(number, *_rest(entry)) for entry in entries))


def _rest(entry: HistoryEntry) -> tuple[ReleaseRef, str, str, tuple[tuple[str, str], ...], str, str]:
    return entry.release, entry.at, entry.by, entry.revisions, entry.fenced, entry.reason


def _kind(release: ReleaseRef, known: Known, current: Record, highest: int) -> str:
    """What the history has to say of it: nothing when it says so already, or when a rollback can't go to it.

    A deploy with a higher number than a fence has begun after it, and lifts it when it goes to that release.
    """
    if release in current.allowed:
        return TARGET if release == current.target else ALLOWED
    last = next((entry for entry in known.history if entry.release == release), None)
    return PAST if last is not None and (not last.fenced or last.generation < highest) else ""


def _assumed(fleet: str, running: Sequence[ReleaseRef], bad: Sequence[ReleaseRef]) -> Record:
    """Where there is no record every release is allowed, so that what runs is what there is."""
    allowed = tuple(dict.fromkeys([*running[:MAX_ALLOWED], *bad]))
    return Record(fleet, 1, ROLLING, allowed[-1], allowed)


def _target(known: Known) -> tuple[ReleaseRef, ...]:
    record = known.record
    newest = takewhile(lambda entry: entry.fenced, known.history)
    same = [entry for entry in newest if record is not None and entry.generation == record.generation]
    if any(entry.fenced == TARGET for entry in same):
        return tuple(dict.fromkeys(entry.release for entry in same))
    if record is None or record.target == NOTHING:
        raise _unknown("(none given)", "the fleet's record has no target", known)
    return (record.target,)


def _unknown(asked: str, found: str, known: Known) -> DriftguardError:
    names = [f"{one.release_id} ({one.sha})" for one in known.releases]
    more = f" and {len(names) - SHOWN_RELEASES} more" if len(names) > SHOWN_RELEASES else ""
    return DriftguardError(
        "option release", "a release id, or at least 7 characters of the SHA of one commit that the fleet knows",
        f"{clean(asked)!r}: {found}",
        f"name one of these: {', '.join(names[:SHOWN_RELEASES]) or 'none is known'}{more}")
