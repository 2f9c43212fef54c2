-- ARGV, of each full barrier: hash of those that are full, barrier (prefix and id), id, '1' if it failed, count of messages,
-- list and text of each, then records and arrivals. What somebody else has fired is passed over.
-- Returns id and body of each barrier that is full now.
local place, found = 1, {}
while place <= #ARGV do
  local follow = tonumber(ARGV[place + 4])
  local mine = redis.call('HDEL', ARGV[place], ARGV[place + 2]) == 1 and redis.call('GET', ARGV[place + 1] .. '.c') ~= 'done'
  if mine then
    for message = place + 5, place + 4 + 2 * follow, 2 do
      redis.call('LPUSH', ARGV[message], ARGV[message + 1])
    end
    forget(ARGV[place + 1], ARGV[place + 3])
  end
  place = further(place + 5 + 2 * follow, mine, found)
end
return found
