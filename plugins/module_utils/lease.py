# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployment lease: one deploy at a time, and a number that orders deploys. Kept in Redis, by its clock alone.

``<fleet>:lock:deploy`` holds it and expires with it; ``<fleet>:lock:deploy:last`` keeps who had it last. A lease stops
nobody who was suspended past its end: that is what its number is for (host_record.py, RedisGateway.publish_record).
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .errors import DriftguardError
from .lease_owner import Owner, is_gone
from .lease_text import OWNER_KEYS, Lease, parse_lease
from .redis_gateway import RedisGateway
from .redis_scripts import ACQUIRE, LOOK, RELEASE, RENEW
from .untrusted import check_fleet, iso_time

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Standing:
    """How the lease stands.

    :param lease: the one that is held, None when it is free.
    :param last: the last holder's, if known.
    :param expires_in: seconds until the held one runs out, None when it never does.
    :param next_number: what the next deploy would get.
    :param now: Redis's time, seconds since 1970.
    :param unreadable: the key holds something that isn't a lease.
    """

    lease: Optional[Lease]
    last: Optional[Lease]
    expires_in: Optional[float]
    next_number: int
    now: int
    unreadable: bool = False

    def of(self, token: str) -> Optional[Lease]:
        """The lease with this token, if it is held or was the last."""
        own = [lease for lease in (self.lease, self.last) if lease is not None and lease.token == token]
        return own[0] if own else None


@dataclass(frozen=True)
class Taken:
    """A lease that is ours.

    :param how: ``taken``, ``renewed`` or ``regained`` (it had run out, and nobody had it since).
    :param took_over_from: who let it run out, or died holding it.
    """

    lease: Lease
    how: str
    took_over_from: Optional[Lease] = None


class LeaseBusy(DriftguardError):
    """A lease is another's, and may be free later."""


class LeaseLost(DriftguardError):
    """A lease that was ours is so no more."""


class DeployLease:
    """The lease of one fleet.

    :param seconds: how long it is held without renewal.
    """

    def __init__(self, gateway: RedisGateway, fleet: str, seconds: float) -> None:
        self._gateway = gateway
        self._milliseconds = max(1, int(seconds * 1000))
        self._fleet = check_fleet(fleet)
        self._key = f"{fleet}:lock:deploy"
        self._keys = [self._key, f"{fleet}:generation", f"{fleet}:release", f"{self._key}:last"]

    def look(self, floor: int = 0) -> Standing:
        """How it stands now; changes nothing.

        :param floor: the highest deployment number that hosts have seen.
        """
        text, left, last, seen, now = self._run(LOOK, [])
        lease = parse_lease(text)
        return Standing(
            lease, parse_lease(last), _seconds(left), max(int(seen), floor) + 1, int(now), bool(text) and lease is None)

    def acquire(
        self, owner: Owner, token: str = "", floor: int = 0, wait: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Taken:
        """Take it, or renew it when the token is the holder's.

        A holder whose process has certainly ended (killed on this very machine) is replaced at once.

        :param token: of a lease taken before; empty for a new one.
        :param floor: the highest deployment number that hosts have seen: Redis may have lost its own.
        :param wait: seconds to wait for another holder.
        :raises LeaseBusy: another holds it; names it.
        """
        deadline = time.monotonic() + wait
        token = token or secrets.token_hex(16)
        while True:
            standing = self.look(floor)
            taken = self._try(owner, token, floor, standing)
            if taken is not None:
                return taken
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.refusal(self.look(floor))
            sleep(min(POLL_SECONDS, left))

    def renew(self, owner: Owner, token: str, number: int = 0) -> Taken:
        """Hold it for longer.

        One that had run out is regained if nobody had it since. It stays its holder's: whoever renews it without a
        process that stands for the deploy, as each host of a rollout does, leaves the name of the one who took it.

        :param number: its number; only needed where Redis may have lost its data.
        :raises LeaseLost: it is another's now, or was given back; names who has it.
        """
        standing = self.look()
        old = standing.of(token)
        number = old.number if old else number
        if number == 0:
            raise self.lost(standing.lease or standing.last, token)
        lease = self._lease(token, old.owner if old and not owner.pid else owner, standing, old)
        how, text = self._run(RENEW, [token, f'{_head(lease)},"number":{number}}}', self._milliseconds, number])
        renewed = parse_lease(text)
        if how == "lost" or renewed is None:
            raise self.lost(renewed, token)
        return Taken(renewed, how)

    def release(self, token: str) -> Optional[Lease]:
        """Give it back. One that ran out or was taken over is gone already.

        :returns: the lease that was given back, None when it was not ours any more.
        """
        answer, text = self._gateway.script(f"key {self._key}", RELEASE, [self._key, self._keys[3]], [token])
        return parse_lease(text) if answer == "released" else None

    def refusal(self, standing: Standing) -> LeaseBusy:
        """The failure when another holds it."""
        end = "never expires" if standing.expires_in is None else f"expires in {standing.expires_in:.0f} s"
        found, remedy = "another that ended this moment", "run again"
        if standing.unreadable:
            found = f"something that isn't a lease, {end}"
            remedy = f"look at it (GET {self._key}); if no deploy runs, DEL {self._key}"
        elif standing.lease is not None:
            found = f"held by {standing.lease}, {end}"
            remedy = "wait for it (option wait), or see with its owner why it takes so long"
        return LeaseBusy(self._subject, "no other deploy", found, remedy)

    @property
    def _subject(self) -> str:
        return f"deployment lease of fleet {self._fleet} in Redis {self._gateway.place}"

    def _run(self, script: str, arguments: list[Any]) -> list[Any]:
        return list(self._gateway.script(f"key {self._key}", script, self._keys, arguments))

    def _lease(self, token: str, owner: Owner, standing: Standing, old: Optional[Lease] = None) -> Lease:
        end = iso_time(standing.now + self._milliseconds / 1000)
        return Lease(token, 0, owner, old.started_at if old else iso_time(standing.now), end)

    def _try(self, owner: Owner, token: str, floor: int, standing: Standing) -> Optional[Taken]:
        holder = standing.lease
        if holder is not None and holder.token == token:
            return self.renew(owner, token)
        dead = holder.token if holder is not None and has_died(holder) else ""
        head = _head(self._lease(token, owner, standing))
        answer, text, more = self._run(ACQUIRE, [token, head, self._milliseconds, floor, dead])
        if answer == "exhausted":
            raise DriftguardError(
                f"Redis {self._gateway.place}, key {self._keys[1]}", "a deployment number below 10^15", "a higher one",
                f"find out who wrote it; then set {self._keys[1]} to the generation in {self._keys[2]}")
        lease = parse_lease(text)
        if answer == "held" or lease is None:
            return None
        return Taken(lease, answer, _unreleased(parse_lease(more)))

    def lost(self, other: Optional[Lease], token: str) -> LeaseLost:
        """The failure when it is ours no more."""
        taken = other is not None and other.token != token
        return LeaseLost(
            self._subject, "to be ours still",
            f"it went to {other}" if taken else "it was given back, or Redis lost it",
            "this run may change nothing more: stop it and start a new deploy")


def has_died(lease: Lease) -> bool:
    """Whether its process was on this machine and has certainly ended."""
    return is_gone(lease.owner.machine, lease.owner.pid, lease.owner.pid_start)


def can_renew(standing: Standing, token: str, number: int = 0) -> bool:
    """Whether :meth:`DeployLease.renew` would succeed, for check mode; Redis itself decides when it comes to it."""
    if standing.lease is not None or standing.unreadable:
        return standing.lease is not None and standing.lease.token == token
    own = standing.of(token)
    if standing.last is not None and (own is None or own.released):
        return False
    return 0 < (own.number if own else number) >= standing.next_number - 1


def left_behind(standing: Standing) -> Optional[Lease]:
    """Whose lease a new holder takes over: one that died holding it, or let it run out."""
    return standing.lease or _unreleased(standing.last)


def _unreleased(lease: Optional[Lease]) -> Optional[Lease]:
    return None if lease is None or lease.released else lease


def _seconds(milliseconds: str) -> Optional[float]:
    left = int(milliseconds)
    return None if left == -1 else max(left, 0) / 1000


def _head(lease: Lease) -> str:
    """The lease's JSON up to its number, which Redis gives."""
    return json.dumps({
        "token": lease.token, "pid": lease.owner.pid,
        **{key: getattr(lease.owner, name) for name, key in OWNER_KEYS.items()},
        "startedAt": lease.started_at, "expiresAt": lease.expires_at,
    }, separators=(",", ":"))[:-1]
