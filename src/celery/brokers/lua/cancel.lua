-- Drop parked messages for good. ARGV: unacked, its index, due index, then tags. Returns the tags that were parked.
local dropped = {}
for place = 4, #ARGV do
  local tag = ARGV[place]
  if redis.call('ZREM', ARGV[3], tag) == 1 then
    redis.call('ZREM', ARGV[2], tag)
    if redis.call('HDEL', ARGV[1], tag) == 1 then dropped[#dropped + 1] = tag end
  end
end
return dropped
