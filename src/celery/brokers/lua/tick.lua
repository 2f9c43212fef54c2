-- Renew a lease, re-score what its holder keeps so that nobody takes it for abandoned, and look for dead holders.
-- ARGV: index, lease prefix, holders, holder, lease in ms, due index, tags. Returns 1 if the lease had run out and somebody
-- had become the heir (fence.lua), how many holders there are, then the dead, of whom it is the heir from now on: who
-- renews a lease that had run out has none any more, but remembers for an hour that there was one (strike.lua).
-- What was parked since the holder listed its tags keeps its score, by which others inherit it on time.
local lease, lapsed = ARGV[2] .. ARGV[4], 0
if redis.call('PEXPIRE', lease, ARGV[5]) == 0 then -- a script that has written may go on where memory is full
  redis.call('SET', lease, '1', 'PX', ARGV[5])
  if redis.call('SET', lease .. '.heir', '', 'XX', 'EX', 3600) then lapsed = 1 end
end
redis.call('SADD', ARGV[3], ARGV[4])
if #ARGV > 6 then
  local time = redis.call('TIME')
  local now = time[1] .. '.' .. string.format('%06d', time[2])
  for place = 7, #ARGV do
    if not redis.call('ZSCORE', ARGV[6], ARGV[place]) then
      redis.call('ZADD', ARGV[1], 'XX', now, ARGV[place])
    end
  end
end
local holders = redis.call('SMEMBERS', ARGV[3])
local answer = {lapsed, #holders}
for _, holder in ipairs(holders) do
  if redis.call('EXISTS', ARGV[2] .. holder) == 0 then
    answer[#answer + 1] = holder
    redis.call('SET', ARGV[2] .. holder .. '.heir', ARGV[4], 'EX', 3600)
  end
end
return answer
