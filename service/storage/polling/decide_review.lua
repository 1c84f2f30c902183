-- include _clock
-- include _epochs
if redis.call('HGET', integration, 'epoch') ~= epoch then return EPOCH end
if redis.call('EXISTS', held) == 0 then
  return redis.call('EXISTS', decided) == 1 and BUSY or NONE
end
if tonumber(redis.call('HGET', review, 'version') or '0') ~= version then return STALE end
if redis.call('EXISTS', decided) == 1 then return BUSY end
redis.call('HSET', integration, 'decision', decision)
redis.call('RENAME', held, decided)
redis.call('DEL', review)
-- A running poll may have begun before the decision: another one follows it at once.
if redis.call('ZSCORE', schedule.claimed, id) then redis.call('HSET', integration, 'again', '1') end
wake_poll(schedule, id)
