-- Reads the forget log. KEYS: the space, its log. ARGV: after which number, how many at most.
local after = tonumber(ARGV[1])
local last = tonumber(redis.call('HGET', KEYS[1], 'forgotten') or '0')
local answer = {now, math.min(after, last)}
if after < last then
  local from = string.format('%.0f-0', after + 1)
  local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ARGV[2])
  for i = 1, #entries do
    answer[i + 2] = entries[i][2][2]
    answer[2] = tonumber(string.match(entries[i][1], '^%d+'))
  end
end
return answer
