-- A row is a string. Marked: 'm', when it was seen, token, value. Claimed: 'c', end of the lease, token,
-- fence, value. There is a blank between the parts. A plain observation is written without a script,
-- which knows no time: instead of when it was seen there is '+' and the milliseconds from then to expiry.
--   m +000000003600001 <16 bytes>
--   m 1764133065000000 <16 bytes>[ value]
--   c 1764133065000000 <16 bytes> 1764133035000000[ value]

-- What a row is answered with; `answer.rs` has the same numbers.
local ABSENT, MARKED, DUPLICATE, IN_FLIGHT, GRANTED, REFRESHED = 0, 1, 2, 3, 4, 5
local RENEWED, COMMITTED, LOST, ABANDONED, FORGOTTEN, FAILED = 6, 7, 8, 9, 10, 11

-- When a row was seen, or its lease ends.
local function moment(key, text)
  local at = tonumber(text)
  if string.sub(text, 1, 1) ~= '+' then return at end
  -- By the time to live alone, which never grows: nor does an age ever shrink.
  return now - (at - redis.call('PTTL', key)) * 1000
end

-- The row of a key, or nil; and what went wrong instead.
local function fetch(key)
  local text = redis.pcall('GET', key)
  if not text then return nil end
  if type(text) == 'table' then return nil, {FAILED, text.err} end
  local kind = string.sub(text, 1, 2)
  if kind == 'm ' and #text >= 35 then
    return {
      marked = true, at = moment(key, string.sub(text, 3, 18)), token = string.sub(text, 20, 35),
      value = string.sub(text, 37),
    }
  elseif kind == 'c ' and #text >= 52 then
    return {
      marked = false, at = moment(key, string.sub(text, 3, 18)), token = string.sub(text, 20, 35),
      fence = tonumber(string.sub(text, 37, 52)), value = string.sub(text, 54),
    }
  end
  return nil, {FAILED, 'NOTAROW ' .. key .. ' holds something else'}
end

local function with_value(text, value)
  if value == '' then return text end
  return text .. ' ' .. value
end

-- Writes a row that is over at `expires`, and answers, unless the server refuses.
local function write(key, text, expires, answer)
  local done = redis.pcall('SET', key, text, 'PXAT', millis(expires))
  if done.err then return {FAILED, done.err} end
  return answer
end

local function mark(key, token, keep, value, answer)
  local text = with_value('m ' .. stamp(now) .. ' ' .. token, value)
  return write(key, text, now + keep, answer)
end

local function claim(key, token, fence, lease, keep, value, answer)
  local text = 'c ' .. stamp(now + lease) .. ' ' .. token .. ' ' .. stamp(fence)
  return write(key, with_value(text, value), now + lease + keep, answer)
end

local function look(row)
  if not row then return ABSENT end
  if row.marked then return {DUPLICATE, math.max(now - row.at, 0), row.value} end
  if row.at > now then return {IN_FLIGHT, row.at - now, row.value} end
  return ABSENT
end
