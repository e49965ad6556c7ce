# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's history: which releases were settled, by which deploy, and where a rollback goes. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Iterable, Optional, Sequence

from .errors import DriftguardError
from .record import ReleaseRef, parse_release
from .untrusted import clean, json_object, whole_number

TARGET = "target"
ALLOWED = "allowed"
PAST = "past"
MAX_REASON = 500


@dataclass(frozen=True)
class HistoryEntry:
    """One release that became the fleet's.

    :param generation: number of the deploy.
    :param at: when, ISO-8601 UTC, Redis's time.
    :param by: who ran the deploy.
    :param revisions: pairs of host and the revision it got.
    :param fenced: empty for a release that was settled; for one that was fenced, what it was then: :data:`TARGET`,
        :data:`ALLOWED` next to another one, or :data:`PAST`.
    :param reason: why it was fenced.
    """

    generation: int
    release: ReleaseRef
    at: str
    by: str
    revisions: tuple[tuple[str, str], ...] = ()
    fenced: str = ""
    reason: str = ""

    def as_json(self) -> str:
        """The entry as it is stored in Redis: one line."""
        fence = {"fenced": self.fenced, "reason": self.reason} if self.fenced else {}
        return json.dumps({
            "generation": self.generation, **self.release.as_json(), "revisions": dict(self.revisions),
            "at": self.at, "by": self.by, **fence,
        }, sort_keys=True, separators=(",", ":"))

    def as_result(self) -> dict[str, Any]:
        """The entry as a module's return value."""
        return {
            "generation": self.generation, **self.release.as_result(), "revisions": dict(self.revisions),
            "at": self.at, "by": self.by, "fenced": self.fenced, "reason": self.reason,
        }


def parse_history(texts: Iterable[str]) -> tuple[list[HistoryEntry], int]:
    """Entries, in the order given, and how many others weren't entries."""
    entries = [_history_entry(json_object(text)) for text in texts]
    good = [entry for entry in entries if entry is not None]
    return good, len(entries) - len(good)


def previous_release(history: Sequence[HistoryEntry], current: Optional[ReleaseRef]) -> Optional[HistoryEntry]:
    """Where a rollback from the current release goes.

    History is read as deploys and their undoing: going back to B over C takes C out, so that
    the next rollback from B goes to what was before B and not to C again. A fence takes its release out for good:
    only a deploy that asks for it puts it back.

    :param history: newest first.
    """
    stack: list[HistoryEntry] = []
    for entry in reversed(history):
        if entry.fenced:
            stack = [other for other in stack if other.release != entry.release]
            continue
        known = [place for place, other in enumerate(stack) if other.release == entry.release]
        stack = [*(stack[:known[0]] if known else stack), entry]
    below = [place for place, entry in enumerate(stack) if entry.release == current]
    if below:
        return stack[below[0] - 1] if below[0] > 0 else None
    return stack[-1] if stack else None


def fenced_releases(history: Sequence[HistoryEntry]) -> dict[ReleaseRef, HistoryEntry]:
    """The releases that were fenced and not settled since, each with the entry that says so.

    :param history: newest first.
    """
    newest: dict[ReleaseRef, HistoryEntry] = {}
    for entry in history:
        newest.setdefault(entry.release, entry)
    return {release: entry for release, entry in newest.items() if entry.fenced}


def fenced_since(subject: str, number: int, told: str) -> DriftguardError:
    """The failure of a deploy whose target was fenced after it had begun, by somebody who couldn't know of it.

    :param number: of the deploy.
    :param told: what the history says of the fence.
    """
    return DriftguardError(
        subject, f"a target that nobody fenced since deploy number {number} began", told,
        "go to another release; to go to this one all the same name it in a new run, which knows of the fence")


def _history_entry(document: Optional[dict[str, Any]]) -> Optional[HistoryEntry]:
    if document is None:
        return None
    release, generation = parse_release(document), whole_number(document.get("generation"), least=1)
    if release is None or generation is None:
        return None
    revisions = document.get("revisions")
    pairs = revisions.items() if isinstance(revisions, dict) else ()
    return HistoryEntry(
        generation, release, clean(str(document.get("at", ""))), clean(str(document.get("by", ""))),
        tuple((clean(str(host)), clean(str(revision))) for host, revision in pairs), *_fence_of(document))


def _fence_of(document: dict[str, Any]) -> tuple[str, str]:
    fenced = document.get("fenced")
    if not fenced:
        return "", ""
    return (fenced if fenced in (TARGET, ALLOWED) else PAST), clean(str(document.get("reason", "")), MAX_REASON)
