-- Marks many keys that are to be kept equally long and have no values: one command a key that is new.
-- KEYS: rows. ARGV: how long they are kept, a token each.
local keep = tonumber(ARGV[1])
local begin = 'm ' .. stamp(now) .. ' '
local expires = millis(now + keep)
local answers = {now}
for i = 1, #KEYS do
  local token = ARGV[i + 1]
  local done = redis.pcall('SET', KEYS[i], begin .. token, 'NX', 'PXAT', expires)
  if not done then
    answers[i + 1] = observe(KEYS[i], token, keep, '')
  elseif done.err then
    answers[i + 1] = {FAILED, done.err}
  else
    answers[i + 1] = MARKED
  end
end
return answers
