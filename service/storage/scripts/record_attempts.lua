-- include _subscriptions _dead
-- Records attempts that have ended, before their courses move on, and what follows from them for
-- the lane: its breaker, and the one place where a subscription is disabled. Begins with a
-- removal, so that it still runs when Redis is at its memory limit. A repeated call changes and
-- counts nothing.
--
-- KEYS  1 lease  2 lane  3 retries  4 failing  5 dead  6 attempts  7 totals  8 counters
--       9 lane state  10 subscription  11 subscriptions version  12 receivers unreachable
--       13 receivers reached  14 dead facts
-- ARGV  1 lease token  2 lease ms  3 most attempt records kept  4 number of counters
--       5 `resumed` as read  6 breaker JSON, '' to leave it  7 parked ms or ''  8 bucket JSON or ''
--       9 '1' to bring all retries forward  10 receiver that was reached or ''
--       11 subscription's record as read, '' unless it is to be disabled  12 its new record
--       then per counter: field, increment
--       then per attempt 6: order key, position, 'S' (delivered), 'R' (retry) or 'D' (dead),
--       "position attempts sent rendering" as `failing` keeps it, ms until the next attempt or
--       the reason it is dead, record JSON
-- Result {'OK', `resumed`, `emptied`, subscriptions version}, {'LEASE'} or {'RECORD'} (the
--        subscription was edited: read it again)
local ATTEMPT = 6
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'LEASE'} end
if ARGV[11] ~= '' and redis.call('HGET', KEYS[10], 'record') ~= ARGV[11] then return {'RECORD'} end
local counters = tonumber(ARGV[4])
local first = 13 + 2 * counters
if (#ARGV - first + 1) % ATTEMPT ~= 0 then
  return redis.error_reply('record_attempts: wrong number of arguments')
end

local now = now_ms()
redis.call('ZREM', KEYS[12], ARGV[10])
local settled, dead, moved = 0, 0, 0
for at = first, #ARGV, ATTEMPT do
  local key, position, result = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local news = false
  local failing = redis.call('HGET', KEYS[4], key)
  if result == 'R' then
    news = failing ~= ARGV[at + 3] and #redis.call('XRANGE', KEYS[2], position, position) == 1
    if news then
      -- To the second, so that retries of one moment share a turn of the sender.
      local due = math.ceil((now + tonumber(ARGV[at + 4])) / 1000) * 1000
      redis.call('ZADD', KEYS[3], string.format('%.0f', due), key)
      redis.call('HSET', KEYS[4], key, ARGV[at + 3])
    end
  else
    if failing and string.match(failing, '^%S+') == position then
      redis.call('ZREM', KEYS[3], key)
      redis.call('HDEL', KEYS[4], key)
    end
    news = redis.call('XDEL', KEYS[2], position) == 1
    if news then settled = settled + 1 end
    if news and result == 'D' then
      local attempts, rendering = string.match(ARGV[at + 3], '^%S+ (%d+) %d+ (%a)')
      dead = dead + list_dead(
        KEYS[5], KEYS[14], position, now, attempts, rendering, key, ARGV[at + 4])
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

local resumed = redis.call('HGET', KEYS[9], 'resumed') or ''
if moved > 0 and ARGV[6] ~= '' and resumed == ARGV[5] then
  -- What a resume has cleared meanwhile stays cleared: its sender begins anew.
  redis.call('HSET', KEYS[9], 'breaker', ARGV[6])
  local parked = 0
  if ARGV[7] == '' then
    parked = -redis.call('HDEL', KEYS[9], 'parked')
  else
    parked = redis.call('HSET', KEYS[9], 'parked', ARGV[7])
  end
  if parked ~= 0 then redis.call('HINCRBY', KEYS[7], 'parked', parked) end
  if ARGV[11] ~= '' then
    redis.call('HSET', KEYS[10], 'record', ARGV[12])
    local disabled = redis.call('HSET', KEYS[9], 'disabled', string.format('%.0f', now))
    redis.call('HINCRBY', KEYS[7], 'disabled', disabled)
    bump_version(KEYS[11])
  end
end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[9], 'bucket', ARGV[8]) end
if ARGV[9] == '1' and redis.call('ZCARD', KEYS[3]) > 0 then
  redis.call('ZUNIONSTORE', KEYS[3], 1, KEYS[3], 'WEIGHTS', 0)
end
if ARGV[10] ~= '' then
  redis.call('ZADD', KEYS[13], string.format('%.0f', now), ARGV[10])
  redis.call('EXPIRE', KEYS[13], 60)
end
if settled ~= 0 then redis.call('HINCRBY', KEYS[7], 'pending', -settled) end
if dead ~= 0 then redis.call('HINCRBY', KEYS[7], 'dead', dead) end
if moved > 0 and counters > 0 then
  for counter = 1, counters do
    redis.call('HINCRBY', KEYS[8], ARGV[11 + 2 * counter], ARGV[12 + 2 * counter])
  end
  redis.call('EXPIRE', KEYS[8], 604800)
end
return {
  'OK', resumed, redis.call('HGET', KEYS[9], 'emptied') or '', redis.call('GET', KEYS[11]) or '0',
}
