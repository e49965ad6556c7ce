# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's kill switches in Redis, and the audit entry that every change of one leaves. Builds on RedisGateway."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from .audit import AUDIT, audit_arguments, audit_key
from .errors import DriftguardError
from .names import FLAG_PATTERN, FLAG_VALUES
from .redis_gateway import RedisGateway
from .untrusted import check_fleet, clean

MAX_FLAGS = 1000
MAX_VALUE = 64

READ_FLAGS = """
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then return {'more'} end
local flat = redis.call('HGETALL', KEYS[1])
for i, word in ipairs(flat) do flat[i] = string.sub(word, 1, tonumber(ARGV[2])) end
table.insert(flat, 1, 'flags')
return flat
"""

# ARGV: flag, value or empty to unset, then who, why and in which run. Answers whether it changed, and what was there.
CHANGE_FLAG = AUDIT + """
local flags, stream = KEYS[1], KEYS[2]
local name, value = ARGV[1], ARGV[2]
audit_ready(stream)
local before = redis.call('HGET', flags, name)
if (before or '') == value and (value ~= '' or not before) then return {'same', before or '', ''} end
if value == '' then redis.call('HDEL', flags, name) else redis.call('HSET', flags, name, value) end
-- Whatever was there, readers of the stream get text.
local was = string.gsub(string.sub(before or '', 1, 64), '[^%w%p ]', '?')
return {'changed', was, audit(stream, 'flag', name, was, value, ARGV[3], ARGV[4], ARGV[5])}
"""


@dataclass
class Flags:
    """All flags of a fleet.

    :param values: name to whether it is on.
    :param malformed: name to what is there, for those whose value is neither ``true`` nor ``false``.
    """

    values: dict[str, bool] = field(default_factory=dict)
    malformed: dict[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """What is stored for a flag, empty when it isn't set."""
        if name in self.values:
            return FLAG_VALUES[0] if self.values[name] else FLAG_VALUES[1]
        return self.malformed.get(name, "")


def read_flags(redis: RedisGateway, fleet: str) -> Flags:
    """All flags.

    :raises DriftguardError: Redis doesn't answer, or there are more than a thousand.
    """
    key = f"{check_fleet(fleet)}:flags"
    kind, *flat = redis.script(f"key {key}", READ_FLAGS, [key], [MAX_FLAGS, MAX_VALUE + 1])
    if kind == "more":
        raise DriftguardError(
            f"Redis {redis.place}, key {key}", f"at most {MAX_FLAGS} flags", "more",
            f"find out who writes to it; HDEL {key} what is none")
    flags = Flags()
    for name, value in sorted(zip(flat[::2], flat[1::2])):
        if FLAG_PATTERN.match(name) and value in FLAG_VALUES:
            flags.values[name] = value == FLAG_VALUES[0]
        else:
            flags.malformed[clean(name, MAX_VALUE)] = clean(value, MAX_VALUE)
    return flags


def change_flag(redis: RedisGateway, fleet: str, name: str, value: Optional[bool], said: tuple[str, str, str]) -> str:
    """Set a flag, or unset it, and note who did it, in one step.

    :param value: None to unset.
    :param said: by whom, why, in which run.
    :returns: when, by Redis's clock; empty when it was like this already, and nothing is noted.
    :raises DriftguardError: Redis doesn't answer, or a key is another application's; nothing was changed.
    """
    keys = [f"{check_fleet(fleet)}:flags", audit_key(fleet)]
    text = "" if value is None else FLAG_VALUES[0] if value else FLAG_VALUES[1]
    _verdict, _before, at = redis.script(
        f"keys {keys[0]} and {keys[1]}", CHANGE_FLAG, keys, [name, text, *audit_arguments(*said)])
    return str(at)
