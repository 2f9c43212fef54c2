-- Dead letters are put on a queue again, or dropped. ARGV[8]: where letters are; then of each letter: queue, id, and the
-- list and the message to push to it, or '' twice. A letter that is gone pushes nothing. Returns how many were there.
dead = ARGV[8]
local count = 0
for place = 9, #ARGV, 4 do
  if exhume(ARGV[place], ARGV[place + 1]) then
    count = count + 1
    if ARGV[place + 2] ~= '' then redis.call('LPUSH', ARGV[place + 2], ARGV[place + 3]) end
  end
end
return count
