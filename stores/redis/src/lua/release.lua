-- Ends the lease. KEYS: the owner. ARGV: epoch.
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'lease_until', stamp(0), 'released', '1')
end
return {now}
