-- Results, follow-up messages and settlement of a batch in one step; a run whose message was taken from us meanwhile
-- leaves nothing behind.
-- ARGV[8]: where dead letters are; ARGV[9..11]: how many, how many bytes of them and for how many seconds they are kept;
-- then of each: tag, disposition (with "!" if its process died), queue and reason if it is rejected, result key or '',
-- document, seconds to keep it or '', count of messages, list and text of each, and records and arrivals of other tasks
-- (barrier.lua).
-- Returns the letters dropped for want of room (queue, number, …), and id and body of each barrier that is full now.
dead, most, most_bytes, age = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local place, found = 12, {}
while place <= #ARGV do
  local tag, disposition, result, follow = ARGV[place], ARGV[place + 1], ARGV[place + 4], tonumber(ARGV[place + 7])
  local held
  if disposition == 'ack' then
    held = drop(tag) == 1
  elseif disposition == 'done' then
    held = true
  elseif disposition == 'reject' or disposition == 'reject!' then
    held = bury(tag, ARGV[place + 2], ARGV[place + 3], disposition == 'reject!')
  else
    local entry = redis.call('HGET', unacked, tag)
    held = entry and release(tag, entry, disposition == 'requeue!' and 'died' or true)
  end
  if held then
    if result ~= '' then store(result, ARGV[place + 5], ARGV[place + 6]) end
    for message = place + 8, place + 7 + 2 * follow, 2 do
      redis.call('LPUSH', ARGV[message], ARGV[message + 1])
    end
  end
  place = further(place + 8 + 2 * follow, held, found)
end
return {dropped, found}
