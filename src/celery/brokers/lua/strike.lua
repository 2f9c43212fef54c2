-- Strike off a dead holder once everything that it held is back on the queues. Not one that has renewed its lease since
-- its heir learned of its death, even if it is dead again: what it took meanwhile would be nobody's. Should it come back,
-- it learns by the heir that is left what it has lost (fence.lua).
-- ARGV: its lease, holders, holder, heir, the set of what it had begun, the set of what goes with it (redis_fanout.py:
-- lists, and bindings as set, separator and member), that separator. Returns whether it was struck off.
if redis.call('EXISTS', ARGV[1]) == 1 or redis.call('GET', ARGV[1] .. '.heir') ~= ARGV[4] then return 0 end
redis.call('EXPIRE', ARGV[1] .. '.heir', 86400)
redis.call('DEL', ARGV[5])
for _, thing in ipairs(redis.call('SMEMBERS', ARGV[6])) do
  local first, last = string.find(thing, ARGV[7], 1, true)
  if first then
    redis.call('SREM', string.sub(thing, 1, first - 1), string.sub(thing, last + 1))
  else
    redis.call('DEL', thing)
  end
end
redis.call('DEL', ARGV[6])
return redis.call('SREM', ARGV[2], ARGV[3])
