-- Shared: values of kombu's `unacked` hash, and giving a message back to its queue.
-- A value is the JSON text [<message>, "<exchange>", "<routing key>"]. The message is cut out, never decoded: decoding
-- in Lua would lose big integers and turn empty lists into objects.
-- ARGV[1..7] of every script that uses this: where things are.
local unacked, unacked_index, due_index, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local separator, steps, bindings = ARGV[5], ARGV[6], ARGV[7]

-- Where memory is full a script may do everything once it has written something that takes no memory: what is held must
-- be given back and settled even then.
redis.call('ZREM', unacked_index, '')

local function split(entry)
  local message, exchange, key = string.match(entry, '^%[(.*),%s*("[^"]*"),%s*("[^"]*")%s*%]$')
  if not message then -- quotes in the queue's name, escaped; only ours then: the exchange is empty
    exchange = '""'
    message, key = string.match(entry, '^%[(.*),%s*"",%s*(".*")%s*%]$')
  end
  if message then
    local names = cjson.decode('[' .. exchange .. ',' .. key .. ']')
    return message, names[1], names[2]
  end
end

-- Delivery info of a message, with what stands before and after it; nothing where there is none.
local function delivery_info(message)
  return string.match(message, '^(.*"delivery_info"%s*:%s*)(%b{})(.*)$')
end

local function was_redelivered(message)
  local _, info = delivery_info(message)
  return info and string.find(info, '"redelivered"%s*:%s*true') and true or false
end

-- How often the process died that had it: ours, kept where kombu keeps `redelivered`.
local function deaths_of(message)
  local _, info = delivery_info(message)
  return info and tonumber(string.match(info, '"deaths"%s*:%s*(%d+)')) or 0
end

local function with(info, name, value)
  local comma = string.find(info, '^{%s*}$') and '' or ', '
  return '{"' .. name .. '": ' .. value .. comma .. string.sub(info, 2)
end

-- The message, marked as kombu marks what it restores: in properties.delivery_info and in headers. `died`: with one
-- death more.
local function marked(message, died)
  local before, info, after = delivery_info(message)
  if not info then -- no publisher of kombu's wrote this
    before, after = string.match(message, '^(.*"properties"%s*:%s*{)(.*)$')
    if before then
      before, info, after = before .. '"delivery_info": ', '{}', (string.find(after, '^%s*}') and '' or ', ') .. after
    end
  end
  if info then
    if string.find(info, '"redelivered"%s*:%s*false') then
      info = string.gsub(info, '("redelivered"%s*:%s*)false', '%1true')
    elseif not string.find(info, '"redelivered"%s*:%s*true') then
      info = with(info, 'redelivered', 'true')
    end
    if died then
      local deaths = tonumber(string.match(info, '"deaths"%s*:%s*(%d+)'))
      if deaths then
        info = string.gsub(info, '("deaths"%s*:%s*)%d+', '%1' .. deaths + 1, 1)
      else
        info = with(info, 'deaths', 1)
      end
    end
    message = before .. info .. after
  end
  local _, brace = string.find(message, '"headers"%s*:%s*{')
  if brace and not string.find(message, '^%s*"redelivered"%s*:%s*true', brace + 1) then
    local comma = string.find(message, '^%s*}', brace + 1) and '' or ', '
    message = string.sub(message, 1, brace) .. '"redelivered": true' .. comma .. string.sub(message, brace + 1)
  end
  return message
end

-- The list of a queue for this message's priority: the greatest step not above it.
local function list_of(queue, message)
  local priority = tonumber(string.match(message, '^.*"priority"%s*:%s*(%d+)')) or 0
  local chosen = 0
  for step in string.gmatch(steps, '%d+') do
    step = tonumber(step)
    if step <= priority and step > chosen then chosen = step end
  end
  return prefix .. queue .. (chosen > 0 and separator .. chosen or '')
end

-- AMQP's topic rule over words: * is one word, # any number of them.
local function topic_matches(pattern, p, words, w)
  if p > #pattern then return w > #words end
  if pattern[p] == '#' then
    for rest = w, #words + 1 do
      if topic_matches(pattern, p + 1, words, rest) then return true end
    end
    return false
  end
  return w <= #words and (pattern[p] == '*' or pattern[p] == words[w]) and topic_matches(pattern, p + 1, words, w + 1)
end

local function words_of(text)
  local words = {}
  for word in string.gmatch(text .. '.', '([^.]*)%.') do words[#words + 1] = word end
  return words
end

-- Queues that an exchange hands a routing key to; the queue of that very name if nothing is bound, so that a message
-- whose binding has gone is kept.
local function queues_of(exchange, key)
  if exchange == '' then return {key} end
  local found = {}
  for _, member in ipairs(redis.call('SMEMBERS', bindings .. exchange)) do
    local parts, start = {}, 1
    for _ = 1, 2 do
      local first, last = string.find(member, separator, start, true)
      if not first then break end
      parts[#parts + 1] = string.sub(member, start, first - 1)
      start = last + 1
    end
    local queue = string.sub(member, start)
    local topic = parts[2] and parts[2] ~= ''
    if parts[1] == key or topic and topic_matches(words_of(parts[1]), 1, words_of(key), 1) then
      found[#found + 1] = queue
    end
  end
  return #found > 0 and found or {key}
end

local function drop(tag)
  redis.call('ZREM', unacked_index, tag)
  return redis.call('HDEL', unacked, tag)
end

-- The queue that a message was taken from by one of ours; '' for what real Celery took through an exchange.
local function queue_of(entry)
  local _, exchange, key = split(entry)
  return exchange == '' and key or ''
end

-- Give a reserved message back, to be taken next, or last if pushed by LPUSH. `mark`: false: as it is; true:
-- redelivered; 'died': and its process died. False if the value is not understood: whoever wrote it restores it.
local function release(tag, entry, mark, push)
  local message, exchange, key = split(entry)
  if not message then return false end
  if mark then message = marked(message, mark == 'died') end
  for _, queue in ipairs(queues_of(exchange, key)) do
    redis.call(push or 'RPUSH', list_of(queue, message), message)
  end
  drop(tag)
  return true
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- tostring() keeps 14 digits, which cuts off the microseconds of today's dates.
local function text(seconds)
  return string.format('%.6f', seconds)
end
