-- Strike off a dead holder once nothing is held under its name; not one that has renewed its lease meanwhile: what it
-- took since would be nobody's.
-- ARGV: lease, holders, holder, the set of what it had begun. Returns whether it was there.
if redis.call('EXISTS', ARGV[1]) == 1 then return 0 end
redis.call('DEL', ARGV[4])
return redis.call('SREM', ARGV[2], ARGV[3])
