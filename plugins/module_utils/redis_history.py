# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs in the fleet's audit stream. Builds on RedisGateway; audit.py has the one writer of the stream."""

from __future__ import annotations

from typing import Any, Mapping

from .audit import AUDIT, MAX_TEXT, audit_arguments, audit_key
from .redis_gateway import RedisGateway
from .untrusted import check_fleet, clean

WHAT = "run"
MAX_RUNS = 1000
PAGE = 200
# The keys of an entry besides those that every audit entry has. All of it is text.
EXTRA = ("result", "seconds", "sha", "hosts", "bad", "left_out", "durations")

# ARGV: seconds that the run took, what, action, from, release, by, message, run, then pairs, the result first. Both
# times are Redis's. Ansible repeats a task whose connection broke, after it did its work as well: that is one entry.
APPEND_RUN = AUDIT + """
audit_ready(KEYS[1])
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 20)) do
  local told = {}
  for i = 1, #entry[2], 2 do told[entry[2][i]] = entry[2][i + 1] end
  if told.what == ARGV[2] and told.name == ARGV[3] and told.run == ARGV[8] and told.result == ARGV[10] then
    return told.at
  end
end
local started = audit_time(tonumber(redis.call('TIME')[1]) - tonumber(ARGV[1]))
return audit(KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8],
  'started', started, unpack(ARGV, 9))
"""

# ARGV: how many runs at most, what marks them, entries per step, characters of each value. Others' entries are passed
# over; the stream is capped, so its end is near.
READ_RUNS = """
local found, last = {}, '+'
while #found < tonumber(ARGV[1]) do
  local page = redis.call('XREVRANGE', KEYS[1], last, '-', 'COUNT', ARGV[3])
  if #page == 0 then break end
  for _, entry in ipairs(page) do
    local flat, is_run = entry[2], false
    for i = 1, #flat, 2 do is_run = is_run or (flat[i] == 'what' and flat[i + 1] == ARGV[2]) end
    if is_run and #found < tonumber(ARGV[1]) then
      for i, word in ipairs(flat) do flat[i] = string.sub(word, 1, tonumber(ARGV[4])) end
      found[#found + 1] = flat
    end
  end
  last = '(' .. page[#page][1]
end
return found
"""


def append_run(redis: RedisGateway, fleet: str, entry: Mapping[str, str]) -> str:
    """Append a run to the fleet's audit stream.

    :param entry: as :func:`.run_history.entry_of` makes it.
    :returns: when it ended, by Redis's clock.
    :raises DriftguardError: Redis doesn't answer, or the key is another application's.
    """
    key = audit_key(fleet)
    said = audit_arguments(*(clean(entry[name], MAX_TEXT - 1) for name in ("by", "message", "run")))
    pairs = [text for name in EXTRA for text in (name, clean(entry[name], MAX_TEXT))]
    return str(redis.script(f"key {key}", APPEND_RUN, [key], [
        int(entry["seconds"] or 0), WHAT, clean(entry["action"]), "", clean(entry["release_id"]), *said, *pairs]))


def read_runs(redis: RedisGateway, fleet: str, most: int) -> list[dict[str, str]]:
    """The last runs, newest first: the stream's own words, cut to 500 characters and untrusted.

    :raises DriftguardError: Redis doesn't answer, or the key is another application's.
    """
    key = f"{check_fleet(fleet)}:audit"
    rows: list[Any] = redis.script(f"key {key}", READ_RUNS, [key], [most, WHAT, PAGE, MAX_TEXT])
    return [dict(zip(flat[::2], flat[1::2])) for flat in rows]
