-- What was taken from a holder that did not renew its lease in time, and renews it now: from here on nothing is.
-- ARGV: unacked, lease, holders, holder, lease in ms, tags. Returns those of the tags that it holds no longer; none if it
-- never had an heir: then nobody took them, and a server that has forgotten them is no reason to do the same.
if redis.call('PEXPIRE', ARGV[2], ARGV[5]) == 0 then
  redis.call('SET', ARGV[2], '1', 'PX', ARGV[5])
  redis.call('SET', ARGV[2] .. '.heir', '', 'XX', 'EX', 3600)
  redis.call('SADD', ARGV[3], ARGV[4])
end
local lost = {}
if redis.call('EXISTS', ARGV[2] .. '.heir') == 0 then return lost end
for place = 6, #ARGV do
  if redis.call('HEXISTS', ARGV[1], ARGV[place]) == 0 then lost[#lost + 1] = ARGV[place] end
end
return lost
