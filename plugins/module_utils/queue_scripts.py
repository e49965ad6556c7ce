# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lua that looks at BullMQ jobs and takes them out, a batch in one step.

A job may go if nothing depends on it and it is exactly as it was when it was looked at. What "exactly" means is one
function, ``mark``, which both scripts share: a digest over the job with all that hangs on it, and its score.
"""

from __future__ import annotations

# Every job id here came out of Redis, where anybody may have put it into a list: the keys that it leads to are looked
# at before they are believed to be a job's.
_JOBS = """
local base, place = KEYS[1], ARGV[1]
local PARTS = {{':logs', 'list'}, {':dependencies', 'set'}, {':processed', 'hash'}, {':failed', 'hash'},
               {':unsuccessful', 'zset'}}

local function ask(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    if string.find(answer.err, 'WRONGTYPE', 1, true) then return nil end
    error(answer.err)
  end
  return answer
end

local function kind(key) return redis.call('TYPE', key).ok end

local function foreign(id)
  local job = base .. id
  local is = kind(job)
  if is ~= 'none' then
    if is ~= 'hash' then return true end
    local known = redis.call('HMGET', job, 'name', 'timestamp')
    if not (known[1] and known[2]) then return true end
  end
  for _, part in ipairs(PARTS) do
    is = kind(job .. part[1])
    if is ~= 'none' and is ~= part[2] then return true end
    if is == 'hash' and redis.call('HEXISTS', job .. part[1], 'timestamp') == 1 then return true end
  end
  local colon = string.find(id, ':', 1, true)
  for _ = 1, 8 do
    if not colon then break end
    if redis.call('EXISTS', base .. string.sub(id, 1, colon - 1) .. ':meta') == 1 then return true end
    colon = string.find(id, ':', colon + 1, true)
  end
  return false
end

local function unfinished(parent, place_of_parent, job)
  if not parent or parent == '' then return false end
  local there = redis.pcall('EXISTS', parent)
  if there == 0 then return false end
  if there ~= 1 or ask('SISMEMBER', parent .. ':dependencies', job) == 1 then return true end
  local ok, at = pcall(cjson.decode, place_of_parent or '')
  if not ok or type(at) ~= 'table' or type(at.queueKey) ~= 'string' or type(at.id) ~= 'string' then return true end
  return not (ask('ZSCORE', at.queueKey .. ':completed', at.id) or ask('ZSCORE', at.queueKey .. ':failed', at.id))
end

local function held(id)
  local job = base .. id
  if foreign(id) then return 'foreign' end
  if redis.call('EXISTS', job .. ':lock') == 1 then return 'locked' end
  if ask('LPOS', base .. 'active', id) then return 'active' end
  if redis.call('SCARD', job .. ':dependencies') > 0 then return 'parent' end
  local parent, place_of_parent, scheduler, single = unpack(redis.call(
    'HMGET', job, 'parentKey', 'parent', 'rjk', 'deid'))
  if unfinished(parent, place_of_parent, job) then return 'child' end
  local due = scheduler and ask('ZSCORE', base .. 'repeat', scheduler)
  if due and id == 'repeat:' .. scheduler .. ':' .. due then return 'scheduled' end
  if single and redis.call('EXISTS', base .. 'dn:' .. single) == 1 then return 'successor' end
  return ''
end

local function score(id)
  if place == 'wait' or place == 'paused' then return '' end
  return ask('ZSCORE', base .. place, id)
end

-- Not by DUMP: the order of a larger hash may change without the hash.
local function digest_of_hash(key)
  local flat, fields, texts = redis.call('HGETALL', key), {}, {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1]; texts[#texts + 1] = flat[i] end
  table.sort(texts)
  for i, field in ipairs(texts) do texts[i] = #field .. ':' .. field .. #fields[field] .. ':' .. fields[field] end
  return redis.sha1hex(table.concat(texts))
end

local function mark(id)
  local job = base .. id
  local sums = {score(id) or '', digest_of_hash(job)}
  for _, part in ipairs(PARTS) do
    local key = job .. part[1]
    sums[#sums + 1] = part[2] == 'hash' and digest_of_hash(key) or redis.sha1hex(redis.call('DUMP', key) or '')
  end
  return redis.sha1hex(table.concat(sums, ' '))
end
"""

# KEYS: base of the queue. ARGV: place, whether contents are wanted, ids. One row per id: reason to keep it or empty,
# mark, score, and with contents: hash, logs, processed, failed, unsuccessful, and the milliseconds that its
# deduplication key has left (empty for none).
INSPECT = _JOBS + """
local rows = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local job = base .. id
  local at = score(id)
  local why = at and held(id) or 'moved'
  if why ~= '' then
    rows[#rows + 1] = {why}
  elseif ARGV[2] ~= '1' then
    rows[#rows + 1] = {'', mark(id), at}
  else
    local single, left = redis.call('HGET', job, 'deid'), ''
    if single and ask('GET', base .. 'de:' .. single) == id then
      left = tostring(redis.call('PTTL', base .. 'de:' .. single))
    end
    rows[#rows + 1] = {
      '', mark(id), at, redis.call('HGETALL', job), redis.call('LRANGE', job .. ':logs', 0, -1),
      redis.call('HGETALL', job .. ':processed'), redis.call('HGETALL', job .. ':failed'),
      redis.call('ZRANGE', job .. ':unsuccessful', 0, -1, 'WITHSCORES'), left}
  end
end
return rows
"""

# KEYS: base of the queue. ARGV: place, a string that no id is, how deep to look in a list; then id and mark of each.
# One answer per id: empty where it was removed, else why it wasn't.
#
# A list is read from its old end until all are found; entries are first overwritten, then dropped at once, since an
# LREM for each would walk the list again and again.
REMOVE = _JOBS + """
local nowhere, depth = ARGV[2], tonumber(ARGV[3])
-- A right that is missing must be missed before anything has gone, not between a list and its job.
for _, command in ipairs({{'DEL'}, {'ZREM', nowhere}, {'LREM', 0, nowhere}, {'LSET', 0, nowhere}}) do
  local said = redis.pcall(command[1], base .. nowhere, unpack(command, 2))
  if type(said) == 'table' and said.err and not string.find(said.err, 'no such key', 1, true) then error(said.err) end
end
local is_list = place == 'wait' or place == 'paused'
local at, wanted = {}, 0
if is_list then
  for i = 4, #ARGV, 2 do at[ARGV[i]], wanted = 0, wanted + 1 end
  local from = 0
  while wanted > 0 and from < depth do
    local entries = redis.call('LRANGE', base .. place, -from - 1000, -from - 1)
    for i = #entries, 1, -1 do
      if at[entries[i]] == 0 then
        at[entries[i]], wanted = -from - 1 - (#entries - i), wanted - 1
      end
    end
    if #entries < 1000 then break end
    from = from + 1000
  end
end

local function taken(id)
  if not is_list then return ask('ZREM', base .. place, id) == 1 end
  redis.call('LSET', base .. place, at[id], nowhere)
  return true
end

local function there(id)
  if is_list then return at[id] and at[id] < 0 end
  return score(id)
end

local most = tonumber(ask('HGET', base .. 'meta', 'opts.maxLenEvents') or nil) or 10000
local answers, dropped = {}, 0
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local job = base .. id
  local why = there(id) and held(id) or 'moved'
  if why == '' and mark(id) ~= ARGV[i + 1] then why = 'changed' end
  if why == '' then
    local single = redis.call('HGET', job, 'deid')
    if not taken(id) then why = 'moved' else
      dropped = dropped + 1
      at[id] = nil
      if single and ask('GET', base .. 'de:' .. single) == id then redis.call('DEL', base .. 'de:' .. single) end
      local keys = {job}
      for _, part in ipairs(PARTS) do keys[#keys + 1] = job .. part[1] end
      redis.call('DEL', unpack(keys))
      redis.pcall('XADD', base .. 'events', 'MAXLEN', '~', most, '*', 'event', 'removed', 'jobId', id, 'prev', place)
    end
  end
  answers[#answers + 1] = why
end
if is_list and dropped > 0 then redis.call('LREM', base .. place, -dropped, nowhere) end
return answers
"""
