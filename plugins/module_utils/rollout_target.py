# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollout goes: a revision that a person or a rollback names, or in check mode one that is only predicted."""

from __future__ import annotations

from typing import Any, Collection, Optional

from .errors import DriftguardError
from .host_record import HostRecords
from .record import SETTLED
from .release_info import Release
from .revisions import Revisions, are_services
from .untrusted import digits


def prediction(fleet: str, revision: str, desired: Any) -> tuple[int, Optional[Release], dict[str, dict[str, Any]]]:
    """Number, release and services of a revision that worker_compose predicted.

    :param revision: its number.
    :param desired: what worker_compose returned.
    :returns: the release is None when it isn't built yet.
    :raises DriftguardError: it isn't what worker_compose returned.
    """
    number = digits(revision)
    release, services = (desired.get(key) for key in ("release", "services")) if isinstance(desired, dict) else (
        None, None)
    if number is None or not isinstance(release, dict) or not are_services(services):
        raise DriftguardError(
            f"fleet {fleet}, options desired and revision", "what worker_compose returned", "something else",
            "hand over its desired and its revision, unedited")
    return number, Release.from_dict(release) if release.get("variants") else None, dict(services or {})


def named_revision(revisions: Revisions, here: HostRecords, wanted: str, fenced: Collection[str]) -> int:
    """Number of the revision that is meant; ``previous`` is the current one where a run ended before it was decided.

    :param wanted: as for :meth:`.revisions.Revisions.resolve`.
    :param fenced: ids of releases that ``previous`` passes over.
    :raises DriftguardError: none, or more than one fits.
    """
    # What is proved is only asked for where it matters: a damaged one must not keep a host from any other.
    if wanted == "previous":
        proved = _proved(revisions)
        # Before a release that was never published is the one that was proved last.
        if proved and proved not in fenced and _is_left_midway(here, proved):
            wanted = "current"
    return revisions.resolve(wanted, fenced)


def _is_left_midway(here: HostRecords, proved: str) -> bool:
    """Whether a run ended before it was decided: what runs here may then be another release than the current."""
    record = here.read().record
    return record is not None and (record.phase != SETTLED or record.target.release_id != proved)


def _proved(revisions: Revisions) -> str:
    """Id of the release that was proved here last, empty before the first."""
    current = revisions.current()
    return "" if current is None else revisions.load(current).release.release_id
