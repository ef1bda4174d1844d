-- Ends the lease. KEYS: the owner. ARGV: epoch, holder.
local owner = redis.call('HMGET', KEYS[1], 'epoch', 'holder')
if owner[1] == ARGV[1] and owner[2] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'lease_until', stamp(0), 'released', '1')
end
return {now}
