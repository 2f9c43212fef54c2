-- Renew a lease, re-score what its holder keeps so that nobody takes it for abandoned, and look for dead holders.
-- ARGV: index, lease prefix, holders, holder, lease in ms, due index, tags. Returns how many holders there are, then the
-- dead. What was parked since the holder listed its tags keeps its score, by which others inherit it on time.
local lease = ARGV[2] .. ARGV[4]
redis.call('PEXPIRE', lease, ARGV[5]) -- a script that has written may go on where memory is full
redis.call('SET', lease, '1', 'PX', ARGV[5])
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
local answer = {#holders}
for _, holder in ipairs(holders) do
  if redis.call('EXISTS', ARGV[2] .. holder) == 0 then answer[#answer + 1] = holder end
end
return answer
