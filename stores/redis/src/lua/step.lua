-- Any steps. KEYS: rows. ARGV: six each: the step, token, previous token, keep, lease, value.
local steps = {}

function steps.look(key)
  local row, failed = fetch(key)
  return failed or look(row)
end

function steps.observe(key, token, _, keep, _, value)
  local row, failed = fetch(key)
  if failed then return failed end
  if row and row.marked and row.token == token then return MARKED end
  local seen = look(row)
  if seen ~= ABSENT then return seen end
  return mark(key, token, keep, value, MARKED)
end

function steps.refresh(key, _, _, keep)
  local row, failed = fetch(key)
  if failed then return failed end
  if not row or not row.marked then return ABSENT end
  return mark(key, row.token, keep, row.value, REFRESHED)
end

function steps.claim(key, token, previous, keep, lease, value)
  local row, failed = fetch(key)
  if failed then return failed end
  local claimed = row and not row.marked
  local again = claimed and row.token == token
  if not again and not (claimed and row.token == previous) then
    local seen = look(row)
    if seen ~= ABSENT then return seen end
  end
  local fence = now
  if again then
    fence = row.fence
  elseif claimed then
    fence = math.max(now, row.fence + 1)
  end
  return claim(key, token, fence, lease, keep, value, {GRANTED, fence})
end

function steps.renew(key, token, _, keep, lease)
  local row, failed = fetch(key)
  if failed then return failed end
  if not row or row.marked or row.token ~= token then return LOST end
  return claim(key, token, row.fence, lease, keep, row.value, RENEWED)
end

function steps.commit(key, token, _, keep, _, value)
  local row, failed = fetch(key)
  if failed then return failed end
  if not row or row.token ~= token then return LOST end
  if row.marked then return COMMITTED end
  if value == '' then value = row.value end
  return mark(key, token, keep, value, COMMITTED)
end

function steps.abandon(key, token)
  local row, failed = fetch(key)
  if failed then return failed end
  if row and row.token == token then
    local done = redis.pcall('DEL', key)
    if type(done) == 'table' then return {FAILED, done.err} end
  end
  return ABANDONED
end

-- Of the two parts of forgetting the first. `forget.lua` has the second.
function steps.forget(key)
  local row, failed = fetch(key)
  if failed then return failed end
  local done = redis.pcall('DEL', key)
  if type(done) == 'table' then return {FAILED, done.err} end
  return {FORGOTTEN, (row and row.marked) and 1 or 0}
end

local answers = {now}
for i = 1, #KEYS do
  local at = (i - 1) * 6
  answers[i + 1] = steps[ARGV[at + 1]](
    KEYS[i], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), ARGV[at + 6]
  )
end
return answers
