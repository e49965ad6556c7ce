# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a rollout goes in check mode: a revision that is only predicted, and so not on disk."""

from __future__ import annotations

from typing import Any, Optional

from .errors import DriftguardError
from .release_info import Release
from .revisions import are_services
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
