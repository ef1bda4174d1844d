-- Registers a space. KEYS: the space. ARGV: check, names of the servers (ascending, a blank between).
local space = redis.call('HMGET', KEYS[1], 'check', 'since', 'servers', 'forgotten')
local check, since, servers, forgotten = space[1], space[2], space[3], space[4]
if not check then
  check, since = ARGV[1], stamp(now)
  redis.call('HSET', KEYS[1], 'check', check, 'since', since, 'servers', ARGV[2])
elseif servers ~= ARGV[2] then
  local here = {}
  for name in string.gmatch(ARGV[2], '%S+') do here[name] = true end
  -- A server that came only added room. One that is gone or another may have taken rows with it.
  for name in string.gmatch(servers, '%S+') do
    if not here[name] then since = stamp(now) end
  end
  redis.call('HSET', KEYS[1], 'since', since, 'servers', ARGV[2])
end
return {now, check, tonumber(since), tonumber(forgotten or '0')}
