-- Takes a space over. KEYS: the owner. ARGV: holder, previous holder, lease, and the progress to begin
-- with: position, complete since, complete through, layout.
local lease = tonumber(ARGV[3])
local owner = redis.call('HMGET', KEYS[1], 'holder', 'lease_until', 'epoch', 'released')
local holder, lease_until, epoch, released = owner[1], tonumber(owner[2] or '0'), owner[3], owner[4]
if not holder then
  redis.call('HSET', KEYS[1], 'epoch', '1', 'holder', ARGV[1], 'last', '', 'last_released', '0',
    'lease_until', stamp(now + lease), 'released', '0', 'position', ARGV[4],
    'complete_since', ARGV[5], 'complete_through', ARGV[6], 'layout', ARGV[7])
elseif holder == ARGV[1] then
  redis.call('HSET', KEYS[1], 'lease_until', stamp(now + lease), 'released', '0')
else
  if lease_until > now and holder ~= ARGV[2] then return {now, 0, lease_until - now} end
  redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', tonumber(epoch) + 1),
    'holder', ARGV[1], 'last', holder, 'last_released', released,
    'lease_until', stamp(now + lease), 'released', '0')
end
local told = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'last_released', 'position',
  'complete_since', 'complete_through', 'layout')
return {now, 1, told[1], told[2], told[3], told[4], told[5], told[6], told[7]}
