-- Writes chunks and progress, if the owner asks. A server that has lost an owner gives his epoch to another
-- one, so the holder counts too. KEYS: the owner, the slices, buckets. ARGV: epoch, holder, lease, position,
-- complete since, complete through, layout; five a chunk: which bucket, its slice, when it is over
-- (milliseconds), its number, its bytes.
local owner = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'position')
if owner[1] ~= ARGV[1] or owner[2] ~= ARGV[2] then return {now, 0} end

local over, grown = {}, {}
for i = 8, #ARGV, 5 do
  local bucket, slice, expires = KEYS[tonumber(ARGV[i]) + 2], ARGV[i + 1], tonumber(ARGV[i + 2])
  local new = redis.call('HSETNX', bucket, ARGV[i + 3], ARGV[i + 4])
  over[bucket] = math.max(over[bucket] or 0, expires)
  local sums = grown[slice] or {bytes = 0, expires = 0}
  sums.bytes, sums.expires = sums.bytes + new * #ARGV[i + 4], math.max(sums.expires, expires)
  grown[slice] = sums
end
for bucket, expires in pairs(over) do
  local left = redis.call('PTTL', bucket)
  if left < 0 or now / 1000 + left < expires then
    redis.call('PEXPIREAT', bucket, string.format('%.0f', expires))
  end
end

for slice, sums in pairs(grown) do
  local known = redis.call('HGET', KEYS[2], slice)
  if known then
    local expires, bytes = string.match(known, '^(%d+) (%d+)$')
    sums.expires, sums.bytes = math.max(sums.expires, tonumber(expires)), sums.bytes + tonumber(bytes)
  else
    -- Once a slice: the list does not grow for ever.
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      if tonumber(string.match(all[i + 1], '^%d+')) * 1000 <= now then
        redis.call('HDEL', KEYS[2], all[i])
      end
    end
  end
  redis.call('HSET', KEYS[2], slice, string.format('%.0f %.0f', sums.expires, sums.bytes))
end

redis.call('HSET', KEYS[1], 'lease_until', stamp(now + tonumber(ARGV[3])), 'released', '0',
  'position', ARGV[4], 'complete_since', ARGV[5], 'complete_through', ARGV[6], 'layout', ARGV[7])
return {now, 1, owner[3]}
