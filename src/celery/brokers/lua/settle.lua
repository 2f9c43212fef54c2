-- Results, follow-up messages and settlement of a batch in one step; a run whose message was taken from us meanwhile
-- leaves nothing behind.
-- ARGV[8]: prefix of dead letters; ARGV[9]: entries kept in each stream; then of each: tag, disposition, queue, reason,
-- result key or '', document, seconds to keep it or '', count of messages, list and text of each, and records and
-- arrivals of other tasks (barrier.lua). Returns id and body of each barrier that is full now.
local place, found = 10, {}
while place <= #ARGV do
  local tag, disposition, result, follow = ARGV[place], ARGV[place + 1], ARGV[place + 4], tonumber(ARGV[place + 7])
  local held
  if disposition == 'ack' then
    held = drop(tag) == 1
  elseif disposition == 'done' then
    held = true
  elseif disposition == 'reject' then
    held = bury(ARGV[8], ARGV[9], tag, ARGV[place + 2], ARGV[place + 3])
  else
    local entry = redis.call('HGET', unacked, tag)
    held = entry and release(tag, entry, true)
  end
  if held then
    if result ~= '' then store(result, ARGV[place + 5], ARGV[place + 6]) end
    for message = place + 8, place + 7 + 2 * follow, 2 do
      redis.call('LPUSH', ARGV[message], ARGV[message + 1])
    end
  end
  place = further(place + 8 + 2 * follow, held, found)
end
return found
