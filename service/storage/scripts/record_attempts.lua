-- Records attempts that have ended, before their courses move on. Begins with removals, so that
-- it still runs when Redis is at its memory limit. A repeated call changes and counts nothing.
--
-- KEYS  1 lease  2 lane  3 retries  4 failing  5 dead  6 attempts  7 totals  8 counters
-- ARGV  1 lease token  2 lease ms  3 most attempt records kept  4 number of counters
--       then per counter: field, increment
--       then per attempt 6: position, 'S' (delivered), 'R' (retry) or 'D' (dead), attempts so
--       far, rendering and order key, ms until the next attempt or the reason it is dead,
--       record JSON
-- Result {'OK'} or {'LEASE'}
local ATTEMPT = 6
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'LEASE'} end
local counters = tonumber(ARGV[4])
local first = 5 + 2 * counters
if (#ARGV - first + 1) % ATTEMPT ~= 0 then
  return redis.error_reply('record_attempts: wrong number of arguments')
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local settled, dead, moved = 0, 0, 0
for at = first, #ARGV, ATTEMPT do
  local position, result = ARGV[at], ARGV[at + 1]
  local news = false
  if result == 'R' then
    local failing = ARGV[at + 2] .. ' ' .. ARGV[at + 3]
    news = redis.call('HGET', KEYS[4], position) ~= failing
      and #redis.call('XRANGE', KEYS[2], position, position) == 1
    if news then
      redis.call('ZREM', KEYS[3], position)
      -- To the second, so that retries of one moment share a turn of the sender.
      local due = math.ceil((now + tonumber(ARGV[at + 4])) / 1000) * 1000
      redis.call('ZADD', KEYS[3], string.format('%.0f', due), position)
      redis.call('HSET', KEYS[4], position, failing)
    end
  else
    redis.call('ZREM', KEYS[3], position)
    redis.call('HDEL', KEYS[4], position)
    news = redis.call('XDEL', KEYS[2], position) == 1
    if news then settled = settled + 1 end
    if news and result == 'D' then
      redis.call('XADD', KEYS[5], '*', 'p', position, 'a', ARGV[at + 2], 'r', ARGV[at + 4])
      dead = dead + 1
    end
  end
  if news then
    moved = moved + 1
    if ARGV[at + 5] ~= '' then
      redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[3], '*', 'p', position, 'd', ARGV[at + 5])
    end
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if settled ~= 0 then redis.call('HINCRBY', KEYS[7], 'pending', -settled) end
if dead ~= 0 then redis.call('HINCRBY', KEYS[7], 'dead', dead) end
if moved > 0 and counters > 0 then
  for counter = 1, counters do
    redis.call('HINCRBY', KEYS[8], ARGV[3 + 2 * counter], ARGV[4 + 2 * counter])
  end
  redis.call('EXPIRE', KEYS[8], 604800)
end
return {'OK'}
