# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Redis user of one release: its name, its rights, and whether a user that is there has them. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional, Sequence
from urllib.parse import urlsplit, urlunsplit

from .errors import DriftguardError
from .names import RELEASE_PATTERN
from .untrusted import check_fleet, clean

PREFIX_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_.-]{1,64}){0,3}\Z")
# INFO is in @dangerous; BullMQ asks it for the server's version before it works.
COMMANDS = ("+@all", "-@admin", "-@dangerous", "+info")
# ACL GETUSER shows a category as itself or as its commands, in any order. Those of @dangerous that aren't @admin too:
_DANGEROUS = frozenset({
    "-flushall", "-flushdb", "-keys", "-migrate", "-restore", "-restore-asking", "-sort", "-sort_ro", "-swapdb"})
_ALWAYS_DANGEROUS = frozenset({"-flushall", "-flushdb", "-keys", "-migrate", "-restore", "-sort", "-swapdb"})


@dataclass(frozen=True)
class UserRules:
    """What the user of one release may do.

    :param prefixes: of the keys that it reads and writes: the fleet, and the queues' where it is another.
    :param digest: SHA-256 of its password, in hex.
    """

    name: str
    fleet: str
    prefixes: tuple[str, ...]
    digest: str

    def setuser(self) -> list[str]:
        """Arguments for ACL SETUSER that make the user exactly this, whatever it was."""
        return [
            "reset", "on", f"#{self.digest}", *(f"~{prefix}:*" for prefix in self.prefixes), f"&{self.fleet}:*",
            *(f"&{prefix}:*" for prefix in self.prefixes if prefix != self.fleet), *COMMANDS]

    def is_met_by(self, found: Optional[Mapping[str, Any]]) -> bool:
        """Whether a user, as ACL GETUSER shows it, is this one."""
        if found is None:
            return False
        keys, channels = (set(_words(found.get(name))) for name in ("keys", "channels"))
        return (
            "on" in _words(found.get("flags")) and "nopass" not in _words(found.get("flags"))
            and _words(found.get("passwords")) == [self.digest]
            and keys == {f"~{prefix}:*" for prefix in self.prefixes}
            and channels == {f"&{prefix}:*" for prefix in {self.fleet, *self.prefixes}}
            and _are_ours(set(_words(found.get("commands"))))
            and not found.get("selectors"))


def rules_for(fleet: str, release_id: str, prefixes: Iterable[str], password: str) -> UserRules:
    """The user of a release.

    :param prefixes: of the queues' keys, as the services have it in BULLMQ_PREFIX.
    :raises DriftguardError: no password, or a prefix that would open more keys than its own.
    """
    if not password:
        raise DriftguardError(
            f"fleet {fleet}, worker_redis_user_per_release", "worker_redis_password, which the users get", "none",
            "give worker_redis_password (in a vault), or leave worker_redis_user_per_release out")
    every = sorted({fleet, *prefixes})
    for prefix in every:
        if not PREFIX_PATTERN.match(prefix):
            raise DriftguardError(
                f"fleet {fleet}, BULLMQ_PREFIX", "letters, digits, dots, dashes, underscores and colons",
                repr(clean(prefix)), "mend BULLMQ_PREFIX in the services' environment")
    return UserRules(user_name(fleet, release_id), fleet, tuple(every), hashlib.sha256(password.encode()).hexdigest())


def user_name(fleet: str, release_id: str) -> str:
    """Name of the user of a release.

    :raises DriftguardError: no fleet's name, or no release id.
    """
    if not RELEASE_PATTERN.match(release_id):
        raise DriftguardError(
            "option releases", "release ids of 12 and 12 hex digits", repr(clean(release_id)),
            "give them as worker_image returns them")
    return f"{check_fleet(fleet)}.{release_id}"


def releases_of(fleet: str, users: Sequence[str]) -> list[str]:
    """The release ids that users of this fleet are for; other users are none of ours."""
    ids = (user[len(fleet) + 1:] for user in users if user.startswith(f"{fleet}."))
    return sorted(found for found in ids if RELEASE_PATTERN.match(found))


def url_for_user(fleet: str, url: str, release_id: str) -> str:
    """The workers' URL with the user of a release in it.

    :raises DriftguardError: it names a user already.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise DriftguardError(
            f"fleet {fleet}, worker_redis_url", "a URL without a user, since worker_redis_user_per_release gives each "
            "release its own", "one with a user",
            "take the user out of worker_redis_url (worker_redis_control_url may have one), or leave the option out")
    return urlunsplit(parts._replace(netloc=f"{user_name(fleet, release_id)}@{parts.netloc}"))


def _are_ours(words: set[str]) -> bool:
    """Whether rules for commands, as ACL GETUSER shows them, come to :data:`COMMANDS`."""
    allowed = {word for word in words if word.startswith("+")}
    denied = words - allowed
    return (
        "+@all" in allowed and allowed <= {"+@all", "+info"} and "-@admin" in denied
        and ("-@dangerous" in denied or denied >= _ALWAYS_DANGEROUS)
        and denied <= _DANGEROUS | {"-@admin", "-@dangerous"})


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [str(word) for word in value] if isinstance(value, (list, tuple)) else []
