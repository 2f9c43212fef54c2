-- Take up to `limit` messages: an equal share of each queue, or with a negative turn all of the first queue before any
-- of the next, step by step of priority; and record
-- each in `unacked` in the same step. Standing alone (no shared functions) because it runs for every batch.
-- KEYS: lists, all queues of the first step, all of the next …; last the due index. Only what is worth waking for may
-- stand there: client tracking follows the declared keys.
-- ARGV: unacked, its index, lease, holders, holder, lease in ms, limit, first number, look for what is due?, queues,
-- turn, pop many?, names.
-- Returns the seconds until the next parked message is due, and queue and message of each that was taken: none if
-- something is due and was looked for, since that goes first (due.lua); last 1 if the lease had run out and somebody has
-- become the heir: fence.lua tells what he took.
local unacked, unacked_index, lease, holder = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local left, number, width, turn = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[10]), tonumber(ARGV[11])
local many = ARGV[12] == '1'
local strict = turn < 0
if strict then turn = 0 end

-- A holder whose lease ran out may have been struck off: nothing may be recorded under an unknown holder.
local lapsed = 0
if redis.call('PEXPIRE', lease, ARGV[6]) == 0 then
  redis.call('SET', lease, '1', 'PX', ARGV[6])
  if redis.call('SET', lease .. '.heir', '', 'XX', 'EX', 3600) then lapsed = 1 end
  redis.call('SADD', ARGV[4], holder)
end

local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local found, fields, scores = {}, {}, {}
local due = redis.call('ZRANGE', KEYS[#KEYS], 0, 0, 'WITHSCORES')[2]
due = due and tonumber(due) - tonumber(now)
if due and due <= 0 and ARGV[9] == '1' then return {string.format('%.6f', due), found, lapsed} end

local function keep(queue, message)
  local tag = holder .. '.' .. number
  number = number + 1
  found[#found + 1] = queue
  found[#found + 1] = message
  fields[#fields + 1] = tag
  fields[#fields + 1] = '[' .. message .. ', "", ' .. ARGV[12 + queue] .. ']'
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

-- Everything was taken: this read makes the server remember that we want to hear of these keys.
if left > 0 then redis.call('EXISTS', unpack(KEYS)) end
return {due and string.format('%.6f', due) or false, found, lapsed}
