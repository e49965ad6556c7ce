# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users of releases in Redis's access control list. Builds on RedisGateway."""

from __future__ import annotations

from typing import Any, Sequence

from .errors import DriftguardError
from .redis_gateway import RedisGateway
from .redis_user_plan import UserRules, releases_of, user_name

_REMEDY_FILE = (
    "set aclfile in redis.conf to a file that the server may replace, and restart it; or leave "
    "worker_redis_user_per_release out")


class RedisUsers:
    """The users of one fleet's releases.

    Every change is saved to the server's ACL file: users that vanish with a restart would lock all workers out.
    """

    def __init__(self, gateway: RedisGateway, fleet: str) -> None:
        self._gateway = gateway
        self._fleet = fleet

    def check(self) -> None:
        """Refuse a server that knows no users, doesn't keep them, or a control user that may not manage them.

        :raises DriftguardError: with what to do; nothing was changed.
        """
        self._command("ACL", "WHOAMI")
        if not _mapping(self._command("CONFIG", "GET", "aclfile")).get("aclfile"):
            raise DriftguardError(
                f"Redis {self._gateway.place}", "an ACL file, since users without one vanish with a restart, and no "
                "worker could log in any more", "no aclfile in its configuration", _REMEDY_FILE)

    def releases(self) -> list[str]:
        """Ids of the releases that have a user."""
        return releases_of(self._fleet, self._command("ACL", "USERS"))

    def lacks(self, rules: UserRules) -> bool:
        """Whether this user is missing, or another than wanted."""
        found = self._command("ACL", "GETUSER", rules.name)
        return not rules.is_met_by(_mapping(found) if found else None)

    def put(self, wanted: Sequence[UserRules]) -> None:
        """Make users, or make them what they should be, and save them."""
        for rules in wanted:
            self._command("ACL", "SETUSER", rules.name, *rules.setuser())
        self._save()

    def remove(self, release_ids: Sequence[str]) -> list[str]:
        """Delete users: their connections are cut at once, and can't be made again.

        :returns: names of those that were there.
        """
        there = set(self.releases())
        names = [user_name(self._fleet, one) for one in release_ids if one in there]
        if names:
            self._command("ACL", "DELUSER", *names)
            self._save()
        return names

    def _save(self) -> None:
        try:
            self._command("ACL", "SAVE")
        except DriftguardError as error:
            raise DriftguardError(error.subject, "the ACL file to be saved", error.found, _REMEDY_FILE) from error

    def _command(self, *words: str) -> Any:
        try:
            return self._gateway.command(*words)
        except DriftguardError as error:
            if "command" in error.found and "unknown" in error.found.lower():
                raise DriftguardError(
                    error.subject, "Redis 6 or later, which knows users", error.found,
                    "upgrade the server, or leave worker_redis_user_per_release out") from error
            if "NOPERM" in error.found or "permission" in error.found:
                raise DriftguardError(
                    error.subject, "a control user that may manage users", error.found,
                    "grant it with ACL SETUSER … +acl +config|get, or name another in worker_redis_control_url; or "
                    "leave worker_redis_user_per_release out") from error
            raise


def _mapping(pairs: Any) -> dict[str, Any]:
    return dict(zip(pairs[::2], pairs[1::2]))
