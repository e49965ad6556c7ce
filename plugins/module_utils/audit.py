# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's audit stream: what people changed, who, why and when. One writer for all that append to it.

An entry is part of the change that it tells of: a script that changes something begins with :data:`AUDIT` and calls
``audit(key, fields)`` in the same step, with :func:`audit_arguments` as its last arguments.
"""

from __future__ import annotations

from typing import Any

from .errors import DriftguardError
from .names import AUDIT_LENGTH
from .untrusted import check_fleet, clean

MAX_TEXT = 500

# ``audit(stream, what, name, from, to, by, reason, run, …)`` appends an entry with the time, by Redis's clock; pairs of
# a key and its text may follow. A stream of another type must be found before the first write: ``audit_ready(stream)``
# fails the script then.
AUDIT = """
local function audit_ready(stream) redis.call('XLEN', stream) end
local function audit_time(seconds)
  -- Days since 1 March of year 0, so that the leap day is a year's last.
  local days = math.floor(seconds / 86400) + 719468
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  year = year + era * 400 + (month <= 2 and 1 or 0)
  local rest = seconds %% 86400
  return string.format('%%04d-%%02d-%%02dT%%02d:%%02d:%%02dZ', year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) %% 60, rest %% 60)
end
local function audit(stream, what, name, from, to, by, reason, run, ...)
  local at = audit_time(tonumber(redis.call('TIME')[1]))
  redis.call('XADD', stream, 'MAXLEN', '~', %d, '*', 'at', at, 'by', by, 'what', what, 'name', name,
    'from', from, 'to', to, 'reason', reason, 'run', run, ...)
  return at
end
""" % AUDIT_LENGTH


def audit_key(fleet: str) -> str:
    """The stream's key.

    :raises DriftguardError: the fleet's name can't be one.
    """
    return f"{check_fleet(fleet)}:audit"


def audit_arguments(by: str, reason: str, run: str) -> list[Any]:
    """What a person says of a change, as the last three arguments of ``audit``.

    :raises DriftguardError: one of them is longer than 500 characters, or not one line.
    """
    for option, said in (("by", by), ("reason", reason), ("run", run)):
        if len(said) > MAX_TEXT or not said.isprintable():
            raise DriftguardError(
                f"option {option}", f"one line of at most {MAX_TEXT} characters", repr(clean(said, 80)),
                "say it shorter, without control characters")
    return [by, reason, run]
