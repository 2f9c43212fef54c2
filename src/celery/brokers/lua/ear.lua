-- Binds the mailboxes of one listener at a direct exchange, or says that they are still wanted, and takes away the
-- bindings of listeners that have been silent for too long: who was killed leaves nothing for ever.
-- KEYS: the bindings of the exchange, kombu's deadlines, our list of who listens
-- ARGV: prefix of all bindings, separator, exchange, milliseconds for which kombu keeps them, milliseconds for which
--       we believe a listener, then the members that stand for the mailboxes
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local keep, ours = tonumber(ARGV[4]), tonumber(ARGV[5])
local mark = ARGV[3] .. ARGV[2]
for i = 6, #ARGV do
    redis.call('SADD', KEYS[1], ARGV[i])
    redis.call('ZADD', KEYS[3], now + ours, mark .. ARGV[i])
end
redis.call('ZADD', KEYS[2], now + keep, ARGV[3])
redis.call('PEXPIRE', KEYS[1], 2 * keep)
redis.call('PEXPIRE', KEYS[3], 2 * keep)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)) do
    local from, to = string.find(gone, ARGV[2], 1, true)
    if from then
        redis.call('SREM', ARGV[1] .. string.sub(gone, 1, from - 1), string.sub(gone, to + 1))
    end
    redis.call('ZREM', KEYS[3], gone)
end
return now
