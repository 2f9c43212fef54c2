-- Strike off a dead holder once everything that it held is back on the queues. Not one that has renewed its lease since
-- its heir learned of its death, even if it is dead again: what it took meanwhile would be nobody's.
-- ARGV: its lease, holders, holder, heir, the set of what it had begun. Returns whether it was struck off.
if redis.call('EXISTS', ARGV[1]) == 1 or redis.call('GET', ARGV[1] .. '.heir') ~= ARGV[4] then return 0 end
redis.call('DEL', ARGV[1] .. '.heir', ARGV[5])
return redis.call('SREM', ARGV[2], ARGV[3])
