-- include _clock
-- include _events
-- include _announcing
-- include _subscriptions
-- include _dead
-- include _replays
-- Records attempts that have ended, before their courses move on, and what follows from them for
-- the lane: its breaker, and the one place where a subscription is disabled. Begins with a
-- removal, so that it still runs when Redis is at its memory limit. A repeated call changes and
-- counts nothing.
--
-- KEYS  1 lease  2 lane  3 retries  4 failing  5 dead  6 attempts  7 totals  8 counters
--       9 lane state  10 subscription  11 subscriptions version  12 receivers unreachable
--       13 receivers reached  14 dead facts  15 replayed  16 replayed retries
--       17 replayed failing  18 untold  19 events  20 due lanes  21 claimed lanes  22 backfilled
--       23.. the lanes that announcements go to
-- ARGV  1 lease token  2 lease ms  3 most attempt records kept  4 number of counters
--       5 `resumed` as read  6 breaker JSON, '' to leave it  7 parked ms or ''  8 bucket JSON or ''
--       9 '1' to bring all retries forward  10 receiver that was reached or ''
--       11 subscription's record as read, '' unless it is to be disabled  12 its new record
--       13 what precedes the id in a replay's key  14 number of lanes
--       15 number of announcements  16 subscriptions version that they were matched with
--       17 '1' if the lane's last attempt failed
--       then per counter: field, increment
--       then per lane: id, '1' if it may be woken
--       then per announcement 7, as in _announcing; changes are 'parked', 'unparked', 'disabled'
--       then per attempt 8: order key, place on the lane or among what is replayed, 'S' (delivered), 'R' (retry) or 'D' (dead),
--       "position attempts sent rendering" as `failing` keeps it, ms until the next attempt or
--       the reason it is dead, record JSON, position in the log, replay id ('' on the live lane)
-- Result {'OK', `resumed`, `emptied`, subscriptions version}, {'LEASE'}, {'RECORD'} (the
--        subscription was edited: read it again) or {'SUBSCRIPTIONS'}
local ATTEMPT = 8
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'LEASE'} end
if ARGV[11] ~= '' and redis.call('HGET', KEYS[10], 'record') ~= ARGV[11] then return {'RECORD'} end
local counters, lanes, notices = tonumber(ARGV[4]), tonumber(ARGV[14]), tonumber(ARGV[15])
if notices > 0 and (redis.call('GET', KEYS[11]) or '0') ~= ARGV[16] then
  return {'SUBSCRIPTIONS'}
end
local first_notice = 18 + 2 * counters + 2 * lanes
local first = first_notice + NOTICE * notices
if (#ARGV - first + 1) % ATTEMPT ~= 0 then
  return redis.error_reply('record_attempts: wrong number of arguments')
end

local now = now_ms()
redis.call('ZREM', KEYS[12], ARGV[10])
local settled, dead, moved, replays = 0, 0, 0, {}
local any_dead = redis.call('ZCARD', KEYS[5]) > 0
for at = first, #ARGV, ATTEMPT do
  local key, place, result = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local position, replay = ARGV[at + 6], ARGV[at + 7]
  local lane, retries, failing = KEYS[2], KEYS[3], KEYS[4]
  if replay ~= '' then lane, retries, failing = KEYS[15], KEYS[16], KEYS[17] end
  local news = false
  local failed = redis.call('HGET', failing, key)
  if result == 'R' then
    news = failed ~= ARGV[at + 3] and #redis.call('XRANGE', lane, place, place) == 1
    if news then
      -- To the second, so that retries of one moment share a turn of the sender.
      local due = math.ceil((now + tonumber(ARGV[at + 4])) / 1000) * 1000
      redis.call('ZADD', retries, string.format('%.0f', due), key)
      redis.call('HSET', failing, key, ARGV[at + 3])
    end
  else
    if failed and string.match(failed, '^%S+') == place then
      redis.call('ZREM', retries, key)
      redis.call('HDEL', failing, key)
    end
    news = redis.call('XDEL', lane, place) == 1
    if news and replay == '' then settled = settled + 1 end
    if news and replay ~= '' then
      forget_backfilled(KEYS[22], position)
      redis.call('HINCRBY', ARGV[13] .. replay, result == 'S' and 'delivered' or 'dead', 1)
      replays[replay] = true
    end
    if news and result == 'S' and any_dead then
      dead = dead - unlist_dead(KEYS[5], KEYS[14], position)
    end
    if news and result == 'D' then
      local attempts, rendering = string.match(ARGV[at + 3], '^%S+ (%d+) %d+ (%a)')
      dead = dead + list_dead(
        KEYS[5], KEYS[14], position, now, attempts, rendering, key, ARGV[at + 4])
      note_dead(KEYS[18], position, key, ARGV[at + 4])
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

local happened = {}
local resumed = redis.call('HGET', KEYS[9], 'resumed') or ''
if moved > 0 and ARGV[6] ~= '' and resumed == ARGV[5] then
  -- What a resume has cleared meanwhile stays cleared: its sender begins anew.
  redis.call('HSET', KEYS[9], 'breaker', ARGV[6])
  if ARGV[17] == '1' then
    redis.call('HSET', KEYS[9], 'failing', '1')
  else
    redis.call('HDEL', KEYS[9], 'failing')
  end
  if ARGV[7] == '' then
    happened.unparked = redis.call('HDEL', KEYS[9], 'parked') == 1 and ARGV[11] == ''
  else
    happened.parked = redis.call('HSET', KEYS[9], 'parked', ARGV[7]) == 1
  end
  if ARGV[11] ~= '' then
    redis.call('HSET', KEYS[10], 'record', ARGV[12])
    happened.disabled = redis.call('HSET', KEYS[9], 'disabled', string.format('%.0f', now)) == 1
    bump_version(KEYS[11])
  end
  count_lane(KEYS[9], KEYS[7])
end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[9], 'bucket', ARGV[8]) end
for _, retries in ipairs({KEYS[3], KEYS[16]}) do
  if ARGV[9] == '1' and redis.call('ZCARD', retries) > 0 then
    redis.call('ZUNIONSTORE', retries, 1, retries, 'WEIGHTS', 0)
  end
end
for replay, _ in pairs(replays) do complete_replay(ARGV[13] .. replay, KEYS[7], now) end
if ARGV[10] ~= '' then
  redis.call('ZADD', KEYS[13], string.format('%.0f', now), ARGV[10])
  redis.call('EXPIRE', KEYS[13], 60)
end
if settled ~= 0 then redis.call('HINCRBY', KEYS[7], 'pending', -settled) end
if dead ~= 0 then redis.call('HINCRBY', KEYS[7], 'dead', dead) end
if moved > 0 and counters > 0 then
  for counter = 1, counters do
    redis.call('HINCRBY', KEYS[8], ARGV[16 + 2 * counter], ARGV[17 + 2 * counter])
  end
  redis.call('EXPIRE', KEYS[8], 604800)
end
if notices > 0 then
  local named = lanes_of(lanes, 23, 18 + 2 * counters)
  announce(notices, first_notice, happened, KEYS[19], named, KEYS[7], KEYS[8])
  wake_lanes(KEYS[20], KEYS[21], named.touched, named.ids, named.wakeable, now)
end
return {
  'OK', resumed, redis.call('HGET', KEYS[9], 'emptied') or '', redis.call('GET', KEYS[11]) or '0',
}
