-- Shared: dead letters. A stream a queue, so that entries can be listed and removed one by one; beside them the names of
-- the queues that have one, and how many bytes each holds. The caller says which keys (`dead` and what begins with it)
-- and how much is kept.
local dead, most, most_bytes, age
-- Queue and number of the letters that had to go for want of room, flat.
local dropped = {}

local function size_of(fields)
  local size = 0
  for place = 2, #fields, 2 do size = size + #fields[place] end
  return size
end

-- Take a letter out; true if it was there.
local function exhume(queue, id)
  local stream = dead .. '.' .. queue
  local found = redis.call('XRANGE', stream, id, id)
  if #found == 0 then return false end
  redis.call('XDEL', stream, id)
  if redis.call('XLEN', stream) == 0 then
    redis.call('DEL', stream)
    redis.call('HDEL', dead .. '-bytes', queue)
    redis.call('SREM', dead, queue)
  else
    redis.call('HINCRBY', dead .. '-bytes', queue, -size_of(found[1][2]))
  end
  return true
end

local function oldest(stream)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return first and first[1]
end

local function bytes_of(queue)
  return tonumber(redis.call('HGET', dead .. '-bytes', queue) or 0)
end

-- Drop the oldest letters of a queue until the rest is within the bounds.
local function keep_bounds(queue)
  local stream, count = dead .. '.' .. queue, 0
  local horizon = (now() - age) * 1000
  local id = oldest(stream)
  while id and tonumber(string.match(id, '^%d+')) < horizon do
    exhume(queue, id)
    id = oldest(stream)
  end
  while id and (redis.call('XLEN', stream) > most or bytes_of(queue) > most_bytes) do
    exhume(queue, id)
    count = count + 1
    id = oldest(stream)
  end
  if count > 0 then
    dropped[#dropped + 1] = queue
    dropped[#dropped + 1] = count
  end
end

-- Keep what was refused, and let go of it. `why`: the reason and the traceback, with a zero byte between them.
local function bury(tag, queue, why, died)
  local entry = redis.call('HGET', unacked, tag)
  local message = entry and split(entry)
  if message then
    local zero = string.find(why, '\0', 1, true)
    local stream = dead .. '.' .. queue
    local fields = {
      'message', message, 'reason', string.sub(why, 1, zero - 1), 'traceback', string.sub(why, zero + 1),
      'deaths', tostring(deaths_of(message) + (died and 1 or 0)),
    }
    if redis.call('EXISTS', stream) == 0 then redis.call('HDEL', dead .. '-bytes', queue) end -- it has expired
    redis.call('XADD', stream, '*', unpack(fields))
    redis.call('HINCRBY', dead .. '-bytes', queue, size_of(fields))
    redis.call('SADD', dead, queue)
    redis.call('EXPIRE', stream, math.ceil(age))
    keep_bounds(queue)
  end
  return drop(tag) == 1
end
