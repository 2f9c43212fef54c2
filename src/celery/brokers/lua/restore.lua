-- Give reserved messages back. ARGV[8]: '1' to mark them redelivered; ARGV[9]: a lease that must have run out, or '';
-- then the tags, the first to be taken first. Parked ones stay parked. Returns how many went back, -1 if the lease lives.
if ARGV[9] ~= '' and redis.call('EXISTS', ARGV[9]) == 1 then return -1 end
local count = 0
for place = #ARGV, 10, -1 do
  local tag = ARGV[place]
  local entry = redis.call('HGET', unacked, tag)
  if entry and not redis.call('ZSCORE', due_index, tag) and release(tag, entry, ARGV[8] == '1') then
    count = count + 1
  end
end
return count
