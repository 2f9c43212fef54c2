-- Restore what nobody has acknowledged for the visibility timeout, real Celery's messages included. kombu's lock is
-- respected, and not taken: a script is alone while it runs.
-- ARGV[8]: visibility timeout; ARGV[9]: kombu's mutex; ARGV[10]: at most so many. Returns how many.
if redis.call('EXISTS', ARGV[9]) == 1 then return 0 end
local last = text(now() - tonumber(ARGV[8]))
local count = 0
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', unacked_index, '-inf', last, 'LIMIT', 0, ARGV[10])) do
  local entry = redis.call('HGET', unacked, tag)
  if not entry then
    redis.call('ZREM', unacked_index, tag)
  elseif release(tag, entry, not redis.call('ZSCORE', due_index, tag)) then
    count = count + 1
  end
  redis.call('ZREM', due_index, tag)
end
return count
