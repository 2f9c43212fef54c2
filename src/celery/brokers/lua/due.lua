-- Put parked messages whose time has come back on their queues. Those of the caller's queues go to the front, the earliest
-- to be taken first: it takes them at once. Those of others go to the back, as if sent now: nobody may come for them for
-- a while, and then the latest must not be the first.
-- ARGV[8]: at most so many; then the caller's queues. Returns how many.
local mine = {}
for place = 9, #ARGV do mine[ARGV[place]] = true end
local tags = redis.call('ZRANGEBYSCORE', due_index, '-inf', text(now()), 'LIMIT', 0, ARGV[8])
if #tags == 0 then return 0 end
local count, first = 0, {}
for _, tag in ipairs(tags) do
  local entry = redis.call('HGET', unacked, tag)
  if entry and mine[queue_of(entry)] then
    first[#first + 1] = tag
    first[#first + 1] = entry
  elseif entry and release(tag, entry, false, 'LPUSH') then
    count = count + 1
  end
end
for place = #first - 1, 1, -2 do
  if release(first[place], first[place + 1], false) then count = count + 1 end
end
redis.call('ZREM', due_index, unpack(tags))
return count
