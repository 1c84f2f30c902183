-- Records attempts that have ended, before their lane moves on. Begins with removals, so that
-- it still runs when Redis is at its memory limit.
--
-- KEYS  1 lease  2 lane  3 retries  4 failing  5 dead  6 attempts  7 totals  8 counters
-- ARGV  1 lease token  2 lease ms  3 most attempt records kept  4 number of counters
--       then per counter: field, increment
--       then per attempt 6: position, 'S' (delivered), 'R' (retry) or 'D' (dead), attempts so
--       far, order key, ms of the next attempt or the reason it is dead, record JSON
-- Result {'OK'} or {'LEASE'}
local ATTEMPT = 6
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'LEASE'} end
local counters = tonumber(ARGV[4])
local first = 5 + 2 * counters
if (#ARGV - first + 1) % ATTEMPT ~= 0 then
  return redis.error_reply('record_attempts: wrong number of arguments')
end

local settled, dead = 0, 0
for at = first, #ARGV, ATTEMPT do
  local position, result = ARGV[at], ARGV[at + 1]
  redis.call('ZREM', KEYS[3], position)
  if result == 'R' then
    if #redis.call('XRANGE', KEYS[2], position, position) == 1 then
      redis.call('ZADD', KEYS[3], ARGV[at + 4], position)
      redis.call('HSET', KEYS[4], position, ARGV[at + 2] .. ' ' .. ARGV[at + 3])
    end
  else
    redis.call('HDEL', KEYS[4], position)
    local removed = redis.call('XDEL', KEYS[2], position)
    settled = settled + removed
    if result == 'D' and removed == 1 then
      redis.call('XADD', KEYS[5], '*', 'p', position, 'a', ARGV[at + 2], 'r', ARGV[at + 4])
      dead = dead + 1
    end
  end
  if ARGV[at + 5] ~= '' then
    redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[3], '*', 'p', position, 'd', ARGV[at + 5])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if settled ~= 0 then redis.call('HINCRBY', KEYS[7], 'pending', -settled) end
if dead ~= 0 then redis.call('HINCRBY', KEYS[7], 'dead', dead) end
for counter = 1, counters do
  redis.call('HINCRBY', KEYS[8], ARGV[3 + 2 * counter], ARGV[4 + 2 * counter])
end
if counters > 0 then redis.call('EXPIRE', KEYS[8], 604800) end
return {'OK'}
