-- How many messages of which queue are held and parked: one page of the `unacked` hash, so that the server is never busy
-- for long. Only where a message came from is read, at the end of its value; nothing is written.
-- ARGV: unacked, due index, cursor, how many. Returns the next cursor, then for each place of origin: its exchange and
-- routing key as JSON, held, parked.
local page = redis.call('HSCAN', ARGV[1], ARGV[3], 'COUNT', ARGV[4])
local held, parked, names = {}, {}, {}
for place = 1, #page[2], 2 do
  local tail = string.sub(page[2][place + 1], -1200)
  local origin = string.match(tail, '.*,%s*("[^"]*",%s*"[^"]*")%s*%]$') or string.match(tail, '.*,%s*("",%s*".*")%s*%]$')
  if origin then
    if not held[origin] then
      names[#names + 1] = origin
      held[origin], parked[origin] = 0, 0
    end
    if redis.call('ZSCORE', ARGV[2], page[2][place]) then
      parked[origin] = parked[origin] + 1
    else
      held[origin] = held[origin] + 1
    end
  end
end
local answer = {page[1]}
for _, origin in ipairs(names) do
  answer[#answer + 1] = origin
  answer[#answer + 1] = held[origin]
  answer[#answer + 1] = parked[origin]
end
return answer
