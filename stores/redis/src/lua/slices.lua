-- The slices that have chunks. KEYS: the slices. Answers three each: slice, when it is over
-- (milliseconds), bytes.
local all = redis.call('HGETALL', KEYS[1])
local answer = {now}
for i = 1, #all, 2 do
  local expires, bytes = string.match(all[i + 1], '^(%d+) (%d+)$')
  if tonumber(expires) * 1000 > now then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = tonumber(expires)
    answer[#answer + 1] = tonumber(bytes)
  end
end
return answer
