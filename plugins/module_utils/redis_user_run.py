# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_redis_user does: makes the users of releases, or deletes those of releases that may not run."""

from __future__ import annotations

import time
from typing import Any, Callable, Mapping, Optional

from .errors import DriftguardError
from .fleet_spec import Service, read_services
from .module_base import Result
from .redis_gateway import RedisGateway, gateway_of
from .redis_user_plan import UserRules, rules_for, user_name
from .redis_users import RedisUsers
from .untrusted import check_fleet

POLL_SECONDS = 0.5
PREFIX_VARIABLE = "BULLMQ_PREFIX"


def run_redis_user(module: Any, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Do what the module's option ``state`` asks.

    :raises DriftguardError: the server has no users or doesn't keep them, an option can't be meant, or a later deploy
        has overtaken this one; nothing changed.
    """
    options = module.params
    fleet = check_fleet(options["fleet"])
    services = read_services(fleet, options["services"], options["defaults"]) if options["services"] else {}
    wanted = _rules(options, services) if options["state"] == "present" else []
    gateway = gateway_of(module)
    users = RedisUsers(gateway, fleet)
    users.check()
    if options["state"] == "present":
        return _present(users, wanted, module.check_mode)
    doomed = _doomed(users, gateway, options)
    there = set(users.releases())
    named = [user_name(fleet, one) for one in doomed if one in there]
    if named and not module.check_mode:
        if options["state"] == "pruned":
            drain = max((service.drain_time for service in services.values()), default=0)
            _await_end(gateway, fleet, set(doomed), drain, sleep)
            # Meanwhile another run may have brought one back.
            doomed = [one for one in _doomed(users, gateway, options) if one in doomed]
        named = users.remove(doomed)
    return _result([], named)


def _rules(options: Mapping[str, Any], services: Mapping[str, Service]) -> list[UserRules]:
    prefixes = {str(service.environment[PREFIX_VARIABLE]) for service in services.values()
                if PREFIX_VARIABLE in service.environment}
    return [
        rules_for(options["fleet"], one, prefixes, options["user_password"] or "") for one in options["releases"] or ()]


def _present(users: RedisUsers, wanted: list[UserRules], check_mode: bool) -> Result:
    missing = [rules for rules in wanted if users.lacks(rules)]
    if missing and not check_mode:
        users.put(missing)
    return _result([rules.name for rules in missing], [])


def _doomed(users: RedisUsers, gateway: RedisGateway, options: Mapping[str, Any]) -> list[str]:
    """Releases whose users go: those that are named, or all that the fleet's record doesn't allow."""
    if options["state"] == "absent":
        for one in options["releases"] or ():
            user_name(options["fleet"], one)
        return list(options["releases"] or ())
    _refuse_overtaken(gateway, options["fleet"], options["generation"])
    record = gateway.record(options["fleet"])
    if record is None:
        raise DriftguardError(
            f"Redis {gateway.place}, key {options['fleet']}:release", "the fleet's record, which says whose users stay",
            "none", "deploy first")
    allowed = {release.release_id for release in record.allowed}
    return [one for one in users.releases() if one not in allowed]


def _refuse_overtaken(gateway: RedisGateway, fleet: str, number: Optional[int]) -> None:
    """A later deploy has its release's user before its record allows that release."""
    highest = 0 if number is None else gateway.generation(fleet)
    if number is not None and highest > number:
        raise DriftguardError(
            f"Redis {gateway.place}, key {fleet}:generation", f"no deploy after number {number}",
            f"deploy number {highest}",
            "no user was deleted; the next deploy that is published deletes those of releases that may not run")


def _await_end(
    gateway: RedisGateway, fleet: str, doomed: set[str], seconds: float, sleep: Callable[[float], None],
) -> None:
    """Leave their instances the time to finish what they have; not longer than one is there."""
    end = time.monotonic() + seconds
    while any(one.release_id in doomed for one in gateway.registrations(fleet).registrations):
        if time.monotonic() >= end:
            return
        sleep(POLL_SECONDS)


def _result(made: list[str], removed: list[str]) -> Result:
    return Result(
        bool(made or removed), {"made": made, "removed": removed}, "".join(f"{name}\n" for name in removed),
        "".join(f"{name}\n" for name in made), "Redis users")
