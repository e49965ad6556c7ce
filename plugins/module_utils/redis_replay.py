# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether Redis will read all of its append-only file again. Builds on RedisGateway."""

from __future__ import annotations

from typing import Any, Sequence

from .errors import DriftguardError
from .redis_gateway import RedisGateway
from .untrusted import clean

__all__ = ["check_replay", "may_write_everything"]

# What jobs, registrations and records are written with. A user that may do everything but other commands, such as
# FLUSHALL, loses nothing.
CATEGORIES = (
    "all", "write", "fast", "slow", "keyspace", "string", "hash", "list", "set", "sortedset", "stream", "transaction")
COMMANDS = (
    "multi", "exec", "set", "hset", "hmset", "hincrby", "hdel", "lpush", "rpush", "lpop", "rpop", "lrem", "lset",
    "ltrim", "lmove", "rpoplpush", "linsert", "zadd", "zincrby", "zrem", "zpopmin", "zremrangebyscore",
    "zremrangebyrank", "sadd", "srem", "spop", "xadd", "xdel", "xtrim", "del", "unlink", "expire", "pexpire",
    "pexpireat", "persist", "incr", "incrby", "decr", "rename", "select", "publish")
NEEDED = frozenset((*(f"-@{name}" for name in CATEGORIES), *(f"-{name}" for name in COMMANDS)))


def check_replay(gateway: RedisGateway) -> None:
    """Refuse a server that would drop jobs and records when it starts again.

    Redis reads its append-only file in the name of the user ``default``, also where that one is off, and silently drops
    each transaction that this user may not do: all that scripts wrote, and most of what BullMQ did
    (https://github.com/redis/redis/issues/14541, mended in late 2025). A server that doesn't let this user ask, or
    knows no users, is taken as it is.

    :raises DriftguardError: with what to do; nothing was changed.
    """
    try:
        if str(gateway.command("INFO", "persistence").get("aof_enabled")) != "1":
            return
        rules = gateway.command("ACL", "GETUSER", "default")
    except DriftguardError:
        return
    if not may_write_everything(rules):
        raise DriftguardError(
            f"Redis {gateway.place}, user default", "leave to write everything, since it is in this user's name, on or "
            "off, that Redis reads its append-only file at a start: what it may not do is lost", clean(_told(rules)),
            "ACL SETUSER default allkeys allchannels +@all, and ACL SAVE; nobody can log in as a user that is off")


def may_write_everything(rules: Any) -> bool:
    """Whether a user may do every command that something is kept with, on every key.

    :param rules: what ``ACL GETUSER`` answers: names and values in turn; keys are a list before Redis 7, words then.
    """
    found = _mapping(rules)
    first, *others = _words(found.get("commands")) or [""]
    may_write = first == "+@all" and not NEEDED.intersection(others)
    return may_write and bool({"*", "~*"} & {*_words(found.get("keys"))})


def _told(rules: Any) -> str:
    found = _mapping(rules)
    commands, keys = (" ".join(_words(found.get(name))) or "nothing" for name in ("commands", "keys"))
    return f"commands {commands}, keys {keys}"


def _words(value: Any) -> list[str]:
    return value.split() if isinstance(value, str) else [str(one) for one in value or ()]


def _mapping(pairs: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(pairs[::2], pairs[1::2]))
