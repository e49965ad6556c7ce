# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_rollout does with ``state: kept``: a host that is as it should be is held to it, any other is planned.

=========================================  =========================================================================
the host                                   then
=========================================  =========================================================================
is on another revision, or its record is   planned as in check mode; nothing is entered, nothing is touched
not settled on this one alone
has a container to change                  the same, but that earlier deploys are refused from then on
is as it should be                         earlier deploys are refused, the lock was held, everything is healthy and
                                           was up for the stabilisation window: ``kept``
=========================================  =========================================================================

An earlier deploy that still works on the host can't change it any more once it is kept, so that a proof which is taken
after it is as good as one after a rollout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Mapping

from .engine import Engine
from .host_record import HostRecords
from .module_base import Result
from .record import SETTLED, ReleaseRef
from .revisions import Revisions
from .rollout import KEPT, Rollout
from .rollout_target import named_revision
from .untrusted import digits


def bring_or_keep(
    engine: Engine, options: Mapping[str, Any], check_mode: bool, may_go_on: Callable[[], None] = lambda: None,
) -> Result:
    """What the module's ``state`` asks for.

    :param options: the module's options.
    :param may_go_on: raises where nobody waits any more for what this is a part of.
    :raises DriftguardError: what failed, on which container, with its log.
    """
    if options["state"] != KEPT:
        return Rollout(engine, options, check_mode, may_go_on).run()
    settled = _is_settled(options)
    result = Rollout(engine, options, check_mode or not settled, may_go_on).run()
    values = {**result.values, "kept": settled and not result.changed, "moved": False}
    # What would be changed is shown by whoever changes it.
    return Result(result.changed, values)


def _is_settled(options: Mapping[str, Any]) -> bool:
    """Whether the revision is the proved one, and the host's record lets its release alone run."""
    here = HostRecords(Path(options["root"]), options["fleet"])
    revisions = Revisions(here.directory)
    current = revisions.current()
    number = digits(options["revision"])  # perhaps of one that is only predicted
    if current is None or current != (
            named_revision(revisions, here, options["revision"], options["fenced"]) if number is None else number):
        return False
    found, release = here.read(), revisions.load(current).release
    own = ReleaseRef(release.release_id, release.sha)
    return bool(
        not found.problem and found.record is not None
        and (found.record.phase, found.record.target, found.record.allowed) == (SETTLED, own, (own,)))
