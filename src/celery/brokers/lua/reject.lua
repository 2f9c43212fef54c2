-- Refused messages become dead letters. ARGV[8]: where letters are; ARGV[9..11]: how many, how many bytes of them and for
-- how many seconds they are kept; then tag, queue, "!" if its process died, and reason and traceback of each.
-- Returns the letters dropped for want of room: queue, number, …
dead, most, most_bytes, age = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
for place = 12, #ARGV, 4 do bury(ARGV[place], ARGV[place + 1], ARGV[place + 3], ARGV[place + 2] == '!') end
return dropped
