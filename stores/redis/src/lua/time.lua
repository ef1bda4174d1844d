-- Moments and spans are microseconds; the clock is the server's.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- For expiry, which knows milliseconds. Rounded up: what is kept lives longer, not shorter.
local function millis(moment)
  return string.format('%.0f', math.ceil(moment / 1000))
end

-- 16 digits, so that a row can be cut at fixed places.
local function stamp(moment)
  return string.format('%016.0f', moment)
end
