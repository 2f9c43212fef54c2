-- Restore what nobody has acknowledged for the visibility timeout, real Celery's messages included. kombu's lock is
-- respected, and not taken: a script is alone while it runs. What we parked is not abandoned when its time has come: it
-- is taken by its due time, in order (due.lua).
-- ARGV[8]: visibility timeout; ARGV[9]: kombu's mutex; ARGV[10]: at most so many. Returns how many.
if redis.call('EXISTS', ARGV[9]) == 1 then return 0 end
local last, most = text(now() - tonumber(ARGV[8])), tonumber(ARGV[10])
local page, count, passed = 1000, 0, 0
repeat
  local tags = redis.call('ZRANGEBYSCORE', unacked_index, '-inf', last, 'LIMIT', passed, page)
  for _, tag in ipairs(tags) do
    local entry = redis.call('HGET', unacked, tag)
    if not entry then
      redis.call('ZREM', unacked_index, tag)
      redis.call('ZREM', due_index, tag)
    elseif redis.call('ZSCORE', due_index, tag) or not release(tag, entry, true) then
      passed = passed + 1
    else
      count = count + 1
      if count == most then break end
    end
  end
until #tags < page or count == most or passed >= 10 * page
return count
