# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps of its fleet's revisions and images, and what goes. Pure: the state comes in, verdicts go out.

In doubt something stays. It costs room on a disk; a revision that a rollback misses costs the rollback.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Collection, Iterable, Mapping, Sequence

from .names import LABEL_CREATED, LABEL_FLEET, LABEL_RELEASE
from .release_info import TIME_PATTERN

UNPROVED = "never proved"
OLDER = "older than the last {keep} proved ones"


@dataclass(frozen=True)
class Revisions:
    """A host's revisions by number.

    :param numbers: all that are there.
    :param current: the one that was proved last.
    :param proved: in the order in which they were, oldest first; one may stand there again.
    :param previous: what rollbacks from the current one go to.
    :param published: those that the fleet's last publications name for this host.
    :param used: number to the name of a container, running or not, that was made from it.
    :param under_way: those of releases that the host's record lets in, while it isn't settled on the current one's.
    """

    numbers: Sequence[int]
    current: int
    proved: Sequence[int]
    previous: Collection[int] = ()
    published: Collection[int] = ()
    used: Mapping[int, str] = field(default_factory=dict)
    under_way: Collection[int] = ()


@dataclass(frozen=True)
class Verdict:
    """What becomes of one revision, and why."""

    number: int
    stays: bool
    reason: str


def judge(revisions: Revisions, keep: int) -> list[Verdict]:
    """A verdict for each revision; those that go in the order in which they do: unproved ones first, then by age.

    :param keep: how many proved ones stay, the current one among them.
    """
    last = list(dict.fromkeys(reversed([number for number in revisions.proved if number in revisions.numbers])))[:keep]
    found = [_verdict(revisions, number, last, keep) for number in sorted(revisions.numbers)]
    return sorted(found, key=lambda verdict: (verdict.stays, verdict.reason != UNPROVED, verdict.number))


def _verdict(revisions: Revisions, number: int, last: Collection[int], keep: int) -> Verdict:
    stays = [
        (number == revisions.current, "the current one"),
        (number in revisions.used, f"container {revisions.used.get(number)} was made from it"),
        (number in revisions.previous, "a rollback goes to it"),
        (number in last, f"one of the last {keep} proved ones"),
        (number in revisions.published, "one of the fleet's last publications"),
        (number in revisions.under_way, "a rollout to its release was begun and not ended"),
        (number > revisions.current and number not in revisions.proved, "newer than the current one"),
    ]
    for holds, reason in stays:
        if holds:
            return Verdict(number, True, reason)
    return Verdict(number, False, OLDER.format(keep=keep) if number in revisions.proved else UNPROVED)


@dataclass(frozen=True)
class Needs:
    """What images are needed for.

    :param fleet: whose images may go.
    :param repositories: in which the fleet's images are named; any other name of an image is somebody else's.
    :param releases: ids of the releases of the revisions that stay.
    :param images: ids and ``repository@digest`` names of their images.
    :param used: ids and names that containers of this engine, of whatever fleet, were made from.
    :param since: when the current release was made. What is newer was built, and not deployed yet.
    """

    fleet: str
    repositories: Collection[str]
    releases: Collection[str]
    images: Collection[str]
    used: Collection[str]
    since: str


@dataclass(frozen=True)
class Image:
    """An image that goes.

    :param names: its names to take away, tags first; the image goes with its last one.
    :param size: bytes; layers that others share are counted too.
    """

    id: str
    names: tuple[str, ...]
    release: str
    size: int


def unneeded(rows: Iterable[Mapping[str, Any]], needs: Needs) -> list[Image]:
    """The fleet's images that nothing needs, in the order of their names.

    :param rows: the engine's list of images.
    """
    found = []
    for row in rows:
        labels = row.get("Labels") or {}
        every = [*(row.get("RepoTags") or ()), *(row.get("RepoDigests") or ())]
        names = tuple(dict.fromkeys(name for name in every if repository(name) in needs.repositories))
        # An image without a name may be anybody's who built upon one of ours: it has inherited the labels.
        if labels.get(LABEL_FLEET) == needs.fleet and names and not _is_needed(row, labels, every, needs):
            found.append(Image(str(row["Id"]), names, str(labels.get(LABEL_RELEASE) or ""), int(row.get("Size") or 0)))
    return sorted(found, key=lambda image: image.names)


def _is_needed(row: Mapping[str, Any], labels: Mapping[str, Any], names: Collection[str], needs: Needs) -> bool:
    marks = {str(row["Id"]), *names}
    created = str(labels.get(LABEL_CREATED) or "")
    return bool(
        labels.get(LABEL_RELEASE) in needs.releases
        or marks & set(needs.images) or marks & set(needs.used)
        or not TIME_PATTERN.match(created) or created > needs.since)


def repository(name: str) -> str:
    """The repository of ``repository:tag`` or ``repository@digest``."""
    plain = name.partition("@")[0]
    head, _colon, tail = plain.rpartition(":")
    return head if head and "/" not in tail else plain
