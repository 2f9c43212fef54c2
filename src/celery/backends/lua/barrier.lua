-- Shared: the barriers of chords, in Celery's keys: <barrier>.j what the members came to, .t members added later, .s how
-- many there are, .d who has arrived, .c who is about to send the body, or "done" ([rkeys.4] to [rkeys.9]).
-- Ours alone: a hash of the barriers that are full and were not fired yet, with the bodies that are to be sent.

-- `barrier`: prefix and group id. Returns the packed body if this was the last member.
local function arrive(full, barrier, id, member, index, part, body, more, ordered, seconds, claim)
  local keys = {barrier .. '.j', barrier .. '.t', barrier .. '.s', barrier .. '.d'}
  local mark = member .. ':' .. index
  if redis.call('GET', barrier .. '.c') == 'done' then return nil end
  if redis.call('SADD', keys[4], mark) == 1 then
    if ordered == '1' then
      redis.call('ZADD', keys[1], index == '' and '+inf' or index, part)
    else
      redis.call('RPUSH', keys[1], part)
    end
    if more ~= '0' then redis.call('INCRBY', keys[2], more) end
    if seconds ~= '' then
      for _, key in ipairs(keys) do redis.call('EXPIRE', key, seconds) end
      redis.call('EXPIRE', barrier, seconds)
    end
  end
  local size = redis.call('GET', keys[3])
  if not size then return nil end
  local extra = tonumber(redis.call('GET', keys[2]) or '0')
  local arrived = redis.call(ordered == '1' and 'ZCARD' or 'LLEN', keys[1])
  if arrived < tonumber(size) + extra then return nil end
  if not redis.call('SET', barrier .. '.c', claim, 'NX', 'EX', 30) then return nil end
  redis.call('HSET', full, id, body)
  return body
end

-- Forget a barrier that was fired; what failed is kept for a while, all but its size.
local function forget(barrier, failed)
  if failed == '1' then
    redis.call('DEL', barrier .. '.s')
  else
    redis.call('DEL', barrier .. '.j', barrier .. '.t', barrier .. '.s', barrier .. '.d')
  end
  redis.call('SET', barrier .. '.c', 'done', 'EX', 300)
end

-- Records and arrivals that belong to one outcome, from ARGV[place] on: each begins with its word. `wanted`: false passes
-- over them. Barriers that are full now are added to `found`: id and body. Returns the place of what comes next.
local function further(place, wanted, found)
  while true do
    local word = ARGV[place]
    if word == 'record' then
      if wanted then store(ARGV[place + 1], ARGV[place + 2], ARGV[place + 3]) end
      place = place + 4
    elseif word == 'arrive' then
      local body = wanted and arrive(unpack(ARGV, place + 1, place + 11))
      if body then
        found[#found + 1] = ARGV[place + 3]
        found[#found + 1] = body
      end
      place = place + 12
    else
      return place
    end
  end
end
