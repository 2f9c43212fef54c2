-- Shared: keep a task's state document and tell those who wait for it.

-- Whether a stored document says SUCCESS at its top level, which is final.
local function succeeded(document)
  if string.find(document, '^{"status"%s*:%s*"') then
    return string.find(document, '^{"status"%s*:%s*"SUCCESS"') ~= nil
  end
  if string.sub(document, 1, 1) == '{' then
    local fine, decoded = pcall(cjson.decode, document)
    if fine then return decoded.status == 'SUCCESS' end
  end
  -- pickle, msgpack, yaml: the state stands a few bytes behind its name, and both stand first.
  local _, name = string.find(document, 'status', 1, true)
  local first = name and string.find(document, 'SUCCESS', name, true)
  return first ~= nil and first - name < 16
end

local function store(key, document, seconds)
  local fresh
  if seconds == '' then
    fresh = redis.call('SET', key, document, 'NX')
  else
    fresh = redis.call('SET', key, document, 'NX', 'EX', seconds)
  end
  if not fresh then
    if succeeded(redis.call('GET', key)) then return end
    if seconds == '' then
      redis.call('SET', key, document)
    else
      redis.call('SET', key, document, 'EX', seconds)
    end
  end
  redis.call('PUBLISH', key, document)
end
