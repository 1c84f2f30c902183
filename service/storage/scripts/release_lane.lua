-- Gives a lane back to the schedule: held back if its worker asks for that; due at once if it
-- holds anything not yet looked at, if its worker asks for that, if it was resumed or emptied meanwhile,
-- if a replay waits to be fed, or if it holds something for which no retry is listed (as after a server
-- lost its last second); else at its next retry, else not at all.
--
-- KEYS  1 lease  2 lane  3 retries  4 due lanes  5 claimed lanes  6 lane state  7 replayed
--       8 replayed retries  9 replay queue
-- ARGV  1 id  2 lease token  3 where the next sender reads on from (start of an XRANGE)
--       4 'now', 'later', 'held' or 'never'  5 ms to be held back  6 `resumed` as read
--       7 bucket JSON or ''  8 ms since when the lane has been read from its beginning to there
--       9 ms that a replay waits to be fed: 0 unless it could not be
--       10 and 11 like 3 and 8 of what is replayed, '' and 0 if it was not read
--       12 `emptied` as read
-- Result 0 if the lease was not ours, 2 if the lane is due now, else 1
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], 'cursor', 'replayed_cursor')
if ARGV[7] ~= '' then redis.call('HSET', KEYS[6], 'bucket', ARGV[7]) end
local pending, replayed = redis.call('XLEN', KEYS[2]), redis.call('XLEN', KEYS[7])
local unfed = redis.call('LLEN', KEYS[9]) > 0
if ARGV[4] == 'never' or (pending + replayed == 0 and not unfed) then return 1 end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = math.huge
if unfed then due = now + tonumber(ARGV[9]) end

-- The next retry of one of the two, by which the lane is due; at once if it lists none.
local function next_retry(length, retries)
  if length == 0 then return false end
  local first = redis.call('ZRANGE', retries, 0, 0, 'WITHSCORES')
  due = math.min(due, #first > 0 and tonumber(first[2]) or now)
  return #first > 0
end

next_retry(replayed, KEYS[8])
local listed = next_retry(pending, KEYS[3])
local unseen = pending > 0 and #redis.call('XRANGE', KEYS[2], ARGV[3], '+', 'COUNT', 1) > 0
local resumed = (redis.call('HGET', KEYS[6], 'resumed') or '') ~= ARGV[6]
-- What waited behind an entry that was taken off is in neither part that has been read.
local emptied = (redis.call('HGET', KEYS[6], 'emptied') or '') ~= ARGV[12]
if not emptied then
  if unseen or listed then
    redis.call('HSET', KEYS[6], 'cursor', ARGV[8] .. ' ' .. ARGV[3])
  end
  if replayed > 0 and ARGV[10] ~= '' then
    redis.call('HSET', KEYS[6], 'replayed_cursor', ARGV[11] .. ' ' .. ARGV[10])
  end
end
if not resumed and ARGV[4] == 'held' then
  redis.call('ZADD', KEYS[5], string.format('%.0f', now + tonumber(ARGV[5])), ARGV[1])
else
  if resumed or emptied or unseen or ARGV[4] == 'now' then due = now end
  redis.call('ZADD', KEYS[4], string.format('%.0f', due), ARGV[1])
  if due <= now then return 2 end
end
return 1
