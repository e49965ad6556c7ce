# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_fence does: publishes the record without a release, and waits until its instances have confirmed."""

from __future__ import annotations

import time
from typing import Any, Callable, Mapping

from .audit import audit_arguments
from .errors import DriftguardError
from .fence_look import Watched, fence_table, silent_ones
from .fence_plan import FencePlan, Known, meant, plan_fence, running_releases
from .lease_owner import user_at_host
from .module_base import Result
from .names import HEARTBEAT_SECONDS, REGISTRATION_TTL_SECONDS
from .record import release_ref, render_json
from .redis_fence import Before, publish_fence, read_before
from .redis_gateway import RedisGateway, gateway_of
from .redis_users import RedisUsers
from .release_history import fenced_releases
from .untrusted import check_fleet, check_seconds, clean, iso_time

ATTEMPTS = 20
POLL_SECONDS = 0.5


def run_fence(module: Any, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Fence what the module's options name.

    :raises DriftguardError: Redis doesn't answer, no release is meant, or others publish all the time.
    """
    options = module.params
    fleet, said = check_fleet(options["fleet"]), (
        clean(options["by"] or user_at_host()), options["reason"], options["run"])
    audit_arguments(*said)
    check_seconds("timeout", options["timeout"])
    gateway = gateway_of(module)
    before, plan, heard, watched = _publish(gateway, options, said, module.check_mode)
    if heard < 0:
        module.warn(
            f"This Redis user may not publish on {fleet}:release:events: workers learn of the fence at their next "
            f"heartbeat only. Grant it with ACL SETUSER … &{fleet}:*")
    _await(gateway, fleet, watched, 0 if module.check_mode else options["timeout"], sleep)
    cut = _cut_off(gateway, fleet, watched, sleep) if options["cut_off"] and not module.check_mode else []
    return Result(
        plan.changed or bool(cut), _values(before, plan, watched, cut, module.check_mode),
        render_json(before.record) if before.record else "", render_json(plan.record), f"{fleet}:release")


def _publish(
    gateway: RedisGateway, options: Mapping[str, Any], said: tuple[str, str, str], check_mode: bool,
) -> tuple[Before, FencePlan, int, Watched]:
    """Plan and publish, again and again while others publish in between.

    The releases that are meant are settled at the first look: what an overtaken deploy does must not change them.
    Who is there is seen before the fence is published: some obey it, and are gone, before there is another look.
    """
    fleet, bad = options["fleet"], None
    for _attempt in range(ATTEMPTS):
        before = read_before(gateway, fleet)
        there = gateway.registrations(fleet)
        known = Known(before.record, before.history, running_releases(there.registrations))
        bad = bad or meant(options["release"], known)
        highest = max(before.highest, options["floor"])
        plan = plan_fence(fleet, known, bad, highest, (iso_time(gateway.time()), said[0], said[1]))
        watched = Watched(plan.bad)
        watched.look(there)
        if check_mode or not plan.changed:
            return before, plan, 0, watched
        heard = publish_fence(gateway, before, plan, said)
        if heard is not None:
            return before, plan, heard, watched
    raise DriftguardError(
        f"Redis {gateway.place}, key {fleet}:release", "a moment without another publication",
        f"{ATTEMPTS} attempts, each overtaken", "find out who publishes all the time, then run the fence again")


def _await(
    gateway: RedisGateway, fleet: str, watched: Watched, seconds: float, sleep: Callable[[float], None],
) -> None:
    end = time.monotonic() + seconds
    watched.look(gateway.registrations(fleet))
    while watched.unconfirmed and time.monotonic() < end:
        sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        watched.look(gateway.registrations(fleet))


def _cut_off(gateway: RedisGateway, fleet: str, watched: Watched, sleep: Callable[[float], None]) -> list[str]:
    """Delete the users of releases that have not confirmed; the names of those that were there.

    A deploy may have brought one back by now: what the record allows again keeps its user.
    Whoever can't come back has no registration when that has run out; one that has registers by another user.
    """
    record = gateway.record(fleet)
    allowed = record.allowed if record else ()
    spared = {one.member for one in gateway.registrations(fleet).registrations
              if release_ref(one.release_id, one.git_sha) in allowed}
    silent = frozenset(one.member for one in watched.unconfirmed) - spared
    if not silent:
        return []
    cut = RedisUsers(gateway, fleet).remove([one.release_id for one in watched.bad if one not in allowed])
    if cut:
        watched.cut = silent
        _await(gateway, fleet, watched, REGISTRATION_TTL_SECONDS + HEARTBEAT_SECONDS, sleep)
    return cut


def _values(before: Before, plan: FencePlan, watched: Watched, cut: list[str], is_prediction: bool) -> dict[str, Any]:
    rows = watched.rows
    return {
        "before": before.record.as_result() if before.record else None,
        "record": plan.record.as_result(), "generation": plan.number,
        "releases": [release.as_result() for release in plan.bad],
        "fenced": [release.as_result() for release in fenced_releases([*plan.entries, *before.history])],
        "confirmed": [row.to_dict() for row in rows if row.confirmed],
        "unconfirmed": [row.to_dict() for row in rows if not row.confirmed],
        "silent": silent_ones(watched), "gone": list(watched.dead), "users_removed": cut,
        "table": fence_table(watched, plan.record, is_prediction),
    }
