-- Adds to the forget log. KEYS: the space, its log. ARGV: how long entries are kept, digests.
-- Numbers come from the clock where that is ahead: a server that has lost the newest ones does not give
-- them again.
local keep = tonumber(ARGV[1])
local space = redis.call('HMGET', KEYS[1], 'forgotten', 'keep')
local last = tonumber(space[1] or '0')
local longest = math.max(keep, tonumber(space[2] or '0'))
for i = 2, #ARGV do
  last = math.max(now, last + 1)
  redis.call('XADD', KEYS[2], string.format('%.0f-0', last), 'digest', ARGV[i])
end
redis.call('HSET', KEYS[1], 'forgotten', string.format('%.0f', last), 'keep', string.format('%.0f', longest))
redis.call('XTRIM', KEYS[2], 'MINID', '~', string.format('%.0f', math.max(now - longest, 0)))
redis.call('PEXPIREAT', KEYS[2], millis(last + longest))
return {now}
