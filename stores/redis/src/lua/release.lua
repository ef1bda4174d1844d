-- Ends the lease. KEYS: the owner. ARGV: epoch, holder or nothing.
local owner = redis.call('HMGET', KEYS[1], 'epoch', 'holder')
if owner[1] == ARGV[1] and (ARGV[2] == '' or owner[2] == ARGV[2]) then
  redis.call('HSET', KEYS[1], 'lease_until', stamp(0), 'released', '1')
end
return {now}
