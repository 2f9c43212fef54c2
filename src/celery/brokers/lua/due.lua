-- Put parked messages whose time has come back on their queues, the earliest to be taken first.
-- ARGV[8]: at most so many. Returns how many.
local tags = redis.call('ZRANGEBYSCORE', due_index, '-inf', text(now()), 'LIMIT', 0, ARGV[8])
local count = 0
for place = #tags, 1, -1 do
  local entry = redis.call('HGET', unacked, tags[place])
  if entry and release(tags[place], entry, false) then count = count + 1 end
end
if #tags > 0 then redis.call('ZREM', due_index, unpack(tags)) end
return count
