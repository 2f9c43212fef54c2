-- Park reserved messages until they are due: left in `unacked`, scored so that kombu's own sweep would restore them on
-- time if no worker of ours were left, and listed in our index.
-- ARGV[8]: visibility timeout; then tag and due time of each. Returns the tags that were no longer held.
local lost = {}
for place = 9, #ARGV, 2 do
  local tag, due = ARGV[place], tonumber(ARGV[place + 1])
  if redis.call('HEXISTS', unacked, tag) == 1 then
    redis.call('ZADD', unacked_index, text(due - tonumber(ARGV[8])), tag)
    redis.call('ZADD', due_index, text(due), tag)
  else
    lost[#lost + 1] = tag
  end
end
return lost
