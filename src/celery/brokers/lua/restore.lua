-- Give reserved messages back. ARGV[8]: '1' to mark them redelivered; ARGV[9]: a lease that must have run out, or '';
-- ARGV[10]: whose deaths are counted (`ports.Blaming`): '' nobody's, '*' everybody's, else the set of tags that had begun;
-- then the tags, the first to be taken first. Parked ones stay parked. Returns how many went back, -1 if the lease lives.
if ARGV[9] ~= '' and redis.call('EXISTS', ARGV[9]) == 1 then return -1 end

local function mark_of(tag, entry)
  if ARGV[8] ~= '1' then return false end
  if ARGV[10] == '' then return true end
  if ARGV[10] == '*' then return 'died' end
  local message = split(entry)
  local blamed = message and (not was_redelivered(message) or redis.call('SISMEMBER', ARGV[10], tag) == 1)
  return blamed and 'died' or true
end

local count = 0
for place = #ARGV, 11, -1 do
  local tag = ARGV[place]
  local entry = redis.call('HGET', unacked, tag)
  if entry and not redis.call('ZSCORE', due_index, tag) and release(tag, entry, mark_of(tag, entry)) then
    count = count + 1
  end
end
return count
