-- Take up to `limit` messages: an equal share of each queue, or with a negative turn all of the first queue before any
-- of the next, step by step of priority; and record
-- each in `unacked` in the same step. Standing alone (no shared functions) because it runs for every batch.
-- KEYS: lists, all queues of the first step, all of the next …; last the due index. Only what is worth waking for may
-- stand there: client tracking follows the declared keys.
-- ARGV: unacked, its index, lease, holders, holder, lease in ms, limit, first number, queues, turn, pop many?, names.
local unacked, unacked_index, lease, holder = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local left, number, width, turn = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local many = ARGV[11] == '1'
local strict = turn < 0
if strict then turn = 0 end

-- A holder whose lease ran out may have been struck off: nothing may be recorded under an unknown holder.
if redis.call('PEXPIRE', lease, ARGV[6]) == 0 then
  redis.call('SET', lease, '1', 'PX', ARGV[6])
  redis.call('SADD', ARGV[4], holder)
end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local found, fields, scores = {}, {}, {}

local function keep(queue, message)
  local tag = holder .. '.' .. number
  number = number + 1
  found[#found + 1] = queue
  found[#found + 1] = message
  fields[#fields + 1] = tag
  fields[#fields + 1] = '[' .. message .. ', "", ' .. ARGV[11 + queue] .. ']'
  scores[#scores + 1] = now
  scores[#scores + 1] = tag
  if #fields >= 2000 then
    redis.call('HSET', unacked, unpack(fields))
    redis.call('ZADD', unacked_index, unpack(scores))
    fields, scores = {}, {}
  end
end

-- Pops up to `share`; returns how many came.
local function pop(list, queue, share)
  if many and share > 1 then
    local messages = redis.call('RPOP', list, share)
    if not messages then return 0 end
    for _, message in ipairs(messages) do keep(queue, message) end
    return #messages
  end
  for taken = 1, share do
    local message = redis.call('RPOP', list)
    if not message then return taken - 1 end
    keep(queue, message)
  end
  return share
end

for first = 0, #KEYS - 2, width do
  local open = {}
  for place = 0, width - 1 do open[#open + 1] = (place + turn) % width + 1 end
  while left > 0 and #open > 0 do
    local share, still = strict and left or math.max(1, math.floor(left / #open)), {}
    for _, queue in ipairs(open) do
      local wanted = math.min(share, left)
      if wanted > 0 then
        local came = pop(KEYS[first + queue], queue, wanted)
        left = left - came
        if came == wanted then still[#still + 1] = queue end
      end
    end
    open = still
  end
  if left == 0 then break end
end

if #fields > 0 then
  redis.call('HSET', unacked, unpack(fields))
  redis.call('ZADD', unacked_index, unpack(scores))
end
if left == 0 then return {false, found} end

-- Everything was taken. The reads make the server remember that we want to hear of these keys.
redis.call('EXISTS', unpack(KEYS))
local due = redis.call('ZRANGE', KEYS[#KEYS], 0, 0, 'WITHSCORES')
return {due[2] and string.format('%.6f', tonumber(due[2]) - tonumber(now)) or false, found}
