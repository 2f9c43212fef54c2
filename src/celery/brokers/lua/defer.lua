-- Park reserved messages until they are due: left in `unacked`, scored so that kombu's own sweep would restore them on
-- time if no worker of ours were left, and listed in our index.
-- ARGV[8]: visibility timeout; then tag and due time of each. With a time of 0 it goes back as it came,
-- to be taken next. Returns the tags that were no longer held.
local lost = {}
for place = #ARGV - 1, 9, -2 do -- the first to be taken first is pushed last
  local tag, due = ARGV[place], tonumber(ARGV[place + 1])
  local entry = redis.call('HGET', unacked, tag)
  if entry and due <= 0 then
    release(tag, entry, false)
  elseif entry then
    redis.call('ZADD', unacked_index, text(due - tonumber(ARGV[8])), tag)
    redis.call('ZADD', due_index, text(due), tag)
  else
    lost[#lost + 1] = tag
  end
end
return lost
