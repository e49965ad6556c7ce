# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lua that runs inside Redis, where several keys must be read and written in one step."""

from __future__ import annotations

from .audit import AUDIT
from .untrusted import MAX_DOCUMENT

MAX_FIELD = 256

# Each answer is one string, which Python's JSON reader in C takes apart many times faster than redis-py's parser takes
# apart 11 replies per registration. HMGET and the cut bound what a hostile hash can cost.
READ_REGISTRATIONS = """
local rows = {}
for i, key in ipairs(KEYS) do
  local ttl = redis.call('PTTL', key)
  if ttl == -2 then
    rows[i] = false
  else
    local row = redis.pcall('HMGET', key, unpack(ARGV))
    if row.err then
      rows[i] = row.err
    else
      for j = 1, #row do if row[j] then row[j] = string.sub(row[j], 1, %d) end end
      row[#row + 1] = ttl
      rows[i] = row
    end
  end
end
return cjson.encode(rows)
""" % MAX_FIELD

READ_HISTORY = """
local entries = redis.call('LRANGE', KEYS[1], 0, ARGV[1])
for i, entry in ipairs(entries) do entries[i] = string.sub(entry, 1, %d) end
return entries
""" % (MAX_DOCUMENT + 1)

# For all scripts that compare deployment numbers: doubles are exact up to 10^15, anything else isn't a number of ours.
NUMBERS = """
local function whole(value)
  value = tostring(value)
  if #value <= 15 and string.match(value, '^%d+$') then return tonumber(value) end
  return 0
end
local function field(document, name)
  local ok, object = pcall(cjson.decode, document or '')
  if ok and type(object) == 'table' then return object[name] end
end
local function highest(counter, record)
  local number = field(record, 'generation')
  if type(number) == 'number' then number = string.format('%.0f', number) end
  return math.max(whole(counter or 0), whole(number or 0))
end
"""

# All reads come before the first write: a key of a wrong type then fails the script before it has done anything.
# A target that was fenced since this deploy's number was given out was fenced with that number or a higher one.
# A fence has no lease. It gives the record and the highest number that it was planned from, and is refused when
# either has changed since; its audit entry is part of the same step.
# Who has a token is refused where another has the lease, or had it last: since Redis was emptied that one's number may
# be the same, or a lower one.
PUBLISH = NUMBERS + AUDIT + """
local function fence_of(release_id, entries)
  for _, entry in ipairs(entries) do
    if string.find(entry, release_id, 1, true) and field(entry, 'releaseId') == release_id then
      return (field(entry, 'fenced') or '') ~= '' and entry or nil
    end
  end
end
local release, counter, history, lock, last, stream = unpack(KEYS)
local number, record, entries, token, length, channel, planned_from, planned_at = unpack(ARGV)
local now = redis.call('GET', release)
local seen = highest(redis.call('GET', counter), now)
local before = redis.call('LRANGE', history, 0, length - 1)
if stream then
  audit_ready(stream)
  if planned_from ~= (now or '') or whole(planned_at) ~= seen then
    return {'overtaken', string.format('%.0f', seen)}
  end
end
if seen > whole(number) then return {'overtaken', string.format('%.0f', seen)} end
local lease = redis.call('GET', lock)
if token ~= '' then
  lease = lease or redis.call('GET', last)
  if lease and field(lease, 'token') ~= token then return {'locked', string.sub(lease, 1, 4096)} end
end
if not stream then
  local fence = fence_of(field(record, 'target').releaseId, before)
  if highest(0, fence) >= whole(number) then return {'fenced', string.sub(fence, 1, 4096)} end
end
redis.call('SET', release, record)
redis.call('SET', counter, number)
for entry in string.gmatch(entries, '[^\\n]+') do redis.call('LPUSH', history, entry) end
if entries ~= '' then redis.call('LTRIM', history, 0, length - 1) end
if stream then audit(stream, 'fence', unpack(ARGV, 9)) end
local heard = redis.pcall('PUBLISH', channel, record)
return {'published', type(heard) == 'number' and tostring(heard) or '-1'}
"""

LOOK = NUMBERS + """
local lock, counter, record, last = unpack(KEYS)
local now = redis.call('TIME')
return {
  string.sub(redis.call('GET', lock) or '', 1, 65537), tostring(redis.call('PTTL', lock)),
  string.sub(redis.call('GET', last) or '', 1, 65537),
  string.format('%.0f', highest(redis.call('GET', counter), redis.call('GET', record))), now[1],
}
"""

# The number is appended here, since cjson would write one above 10^14 in floating point.
ACQUIRE = NUMBERS + """
local lock, counter, record, last = unpack(KEYS)
local token, holder, milliseconds, floor, dead = unpack(ARGV)
local held, before = redis.call('GET', lock), redis.call('GET', last)
local number = math.max(highest(redis.call('GET', counter), redis.call('GET', record)), whole(floor)) + 1
if held and (dead == '' or field(held, 'token') ~= dead) then
  return {'held', string.sub(held, 1, 65537), tostring(redis.call('PTTL', lock))}
end
if whole(string.format('%.0f', number)) == 0 then return {'exhausted', '', ''} end
local lease = holder .. ',"number":' .. string.format('%.0f', number) .. '}'
redis.call('SET', lock, lease, 'PX', milliseconds)
redis.call('SET', counter, string.format('%.0f', number))
redis.call('SET', last, lease)
return {'taken', lease, string.sub(held or before or '', 1, 65537)}
"""

# A lease that ran out is its holder's again if nobody has had one since: no higher number, and no other last holder.
RENEW = NUMBERS + """
local lock, counter, record, last = unpack(KEYS)
local token, lease, milliseconds, number = unpack(ARGV)
local held, before = redis.call('GET', lock), redis.call('GET', last)
local seen = highest(redis.call('GET', counter), redis.call('GET', record))
local mine = held and field(held, 'token') == token
local untaken = not before or (field(before, 'token') == token and not field(before, 'released'))
if not mine and (held or not untaken or seen > whole(number)) then
  return {'lost', string.sub(held or before or '', 1, 65537)}
end
redis.call('SET', lock, lease, 'PX', milliseconds)
redis.call('SET', counter, string.format('%.0f', math.max(seen, whole(number))))
redis.call('SET', last, lease)
return {mine and 'renewed' or 'regained', lease}
"""

RELEASE = NUMBERS + """
local lock, last = unpack(KEYS)
local held, before = redis.call('GET', lock), redis.call('GET', last)
if before and field(before, 'token') == ARGV[1] and not field(before, 'released') then
  redis.call('SET', last, string.sub(before, 1, -2) .. ',"released":true}')
end
if held and field(held, 'token') == ARGV[1] then
  redis.call('DEL', lock)
  return {'released', string.sub(held, 1, 65537)}
end
return {'other', string.sub(held or '', 1, 65537)}
"""
