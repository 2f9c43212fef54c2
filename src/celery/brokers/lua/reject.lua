-- Refused messages become dead letters. ARGV[8]: prefix of the streams; ARGV[9]: entries kept in each; then tag, queue
-- and reason of each. Returns how many were still held.
local count = 0
for place = 10, #ARGV, 3 do
  if bury(ARGV[8], ARGV[9], ARGV[place], ARGV[place + 1], ARGV[place + 2]) then count = count + 1 end
end
return count
