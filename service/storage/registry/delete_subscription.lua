-- include _clock
-- include _subscriptions
if redis.call('EXISTS', subscription) == 0 then return GONE end
if as_read and redis.call('HGET', subscription, 'record') ~= as_read then return STALE end
for _, index in ipairs({subscriptions, schedule.due, schedule.claimed, schedule.overdue}) do
  redis.call('ZREM', index, id)
end
local pending, dead = redis.call('XLEN', outbox), redis.call('ZCARD', outbox_dead)
uncount_outbox(outbox_state, totals)
local unfinished = 0
for _, replay in ipairs(redis.call('ZRANGE', replays, 0, -1)) do
  if redis.call('HEXISTS', replay_prefix .. replay, 'finished_at') == 0 then
    unfinished = unfinished + 1
  end
  redis.call('UNLINK', replay_prefix .. replay)
end
redis.call('UNLINK', subscription, outbox, outbox_dead, outbox_state, lease, replays)
for _, key in ipairs(others) do redis.call('UNLINK', key) end
if pending ~= 0 then redis.call('HINCRBY', totals, 'pending', -pending) end
if dead ~= 0 then redis.call('HINCRBY', totals, 'dead', -dead) end
if unfinished ~= 0 then redis.call('HINCRBY', totals, 'replays', -unfinished) end
bump_version(subscriptions_version)
