-- ARGV: hash of the barriers that are full, prefix of barriers, claim. Returns id and body of each that was not fired and
-- that nobody is about to fire; they are ours for the next half minute.
local found, all = {}, redis.call('HGETALL', ARGV[1])
for place = 1, #all, 2 do
  local claim = ARGV[2] .. all[place] .. '.c'
  if redis.call('SET', claim, ARGV[3], 'NX', 'EX', 30) then
    found[#found + 1] = all[place]
    found[#found + 1] = all[place + 1]
  elseif redis.call('GET', claim) == 'done' then
    redis.call('HDEL', ARGV[1], all[place])
  end
end
return found
