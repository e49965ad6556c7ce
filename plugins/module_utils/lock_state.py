# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes, renews, gives back and shows the deployment lease: the work of worker_lock."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from .lease import DeployLease, LeaseBusy, LeaseLost, Standing, Taken, can_renew, has_died, left_behind
from .lease_owner import Owner, this_owner
from .lease_text import Lease
from .module_base import FailedResult, Result
from .redis_gateway import gateway_of
from .redis_replay import check_replay
from .untrusted import check_seconds

LEAST_LEASE = 1.0


def run_lock(module: Any) -> Result:
    """Do what the module's option ``state`` asks.

    :raises DriftguardError: the lease is another's.
    """
    options = module.params
    check_seconds("wait", options["wait"])
    seconds = check_seconds("lease", options["lease"], LEAST_LEASE)
    redis = gateway_of(module)
    if options["state"] == "held":
        # The first thing a deploy asks of Redis: one that would lose records must not even begin.
        redis.preflight()
        check_replay(redis)
    lease = DeployLease(redis, options["fleet"], seconds)
    actions = {"read": _read, "held": _hold, "renewed": _renew, "released": _release}
    try:
        return actions[options["state"]](lease, {**options, "token": options["token"] or ""}, module.check_mode)
    except LeaseLost as error:
        raise FailedResult(error, {"lost": True}) from error
    except LeaseBusy as error:
        raise FailedResult(error, {"busy": True}) from error


def _read(lease: DeployLease, options: Mapping[str, Any], check_mode: bool) -> Result:
    standing = lease.look(options["floor"])
    return Result(False, {
        **_values(standing.lease), "held": standing.lease is not None or standing.unreadable,
        "expires_in": standing.expires_in, "generation_next": standing.next_number,
        "last": standing.last.as_result() if standing.last else None,
    })


def _hold(lease: DeployLease, options: Mapping[str, Any], check_mode: bool) -> Result:
    token, floor = options["token"], options["floor"]
    standing = lease.look(floor)
    if not check_mode:
        taken = lease.acquire(_owner(options), token, floor, options["wait"])
        return _taken(standing, taken)
    own = standing.lease if standing.lease and standing.lease.token == token else None
    free = not standing.unreadable and (standing.lease is None or own is not None or has_died(standing.lease))
    if not free and not options["wait"]:
        raise lease.refusal(standing)
    number = own.number if own else standing.next_number
    before = None if own else left_behind(standing)
    return _result(standing.lease, f"held, deploy number {number}\n", {
        **_values(own), "held": False, "generation": number, "token": token, "took_over_from": _shown(before)})


def _renew(lease: DeployLease, options: Mapping[str, Any], check_mode: bool) -> Result:
    token, number = options["token"], options["generation"] or 0
    standing = lease.look()
    if not check_mode:
        return _taken(standing, lease.renew(_owner(options), token, number))
    if token and not can_renew(standing, token, number):  # none: as the check of taking it returned
        raise lease.lost(standing.lease or standing.last, token)
    own = standing.of(token)
    return _result(standing.lease, "renewed\n", {
        **_values(own), "held": True, "generation": own.number if own else number, "token": token,
        "took_over_from": None})


def _release(lease: DeployLease, options: Mapping[str, Any], check_mode: bool) -> Result:
    standing = lease.look()
    own = standing.lease is not None and standing.lease.token == options["token"]
    if not check_mode:
        own = lease.release(options["token"]) is not None
    holder = None if own else standing.lease
    values = {
        **_values(holder), "held": False, "token": "", "took_over_from": None, "generation_next": standing.next_number}
    return _result(standing.lease, "free\n", values) if own else Result(False, values)


def _taken(standing: Standing, taken: Taken) -> Result:
    return _result(standing.lease, f"{taken.lease}\n", {
        **_values(taken.lease), "held": True, "token": taken.lease.token, "how": taken.how,
        "took_over_from": _shown(taken.took_over_from)})


def _result(before: Optional[Lease], after: str, values: dict[str, Any]) -> Result:
    return Result(True, values, f"{before}\n" if before else "free\n", after, "deployment lease")


def _values(lease: Optional[Lease]) -> dict[str, Any]:
    return {"lease": _shown(lease), "generation": lease.number if lease else 0}


def _shown(lease: Optional[Lease]) -> Optional[dict[str, Any]]:
    return lease.as_result() if lease else None


def _owner(options: Mapping[str, Any]) -> Owner:
    return this_owner(options["owner"], options["run"], options["pid"])
