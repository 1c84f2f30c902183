-- include _clock
-- include _positions
-- include _events
-- include _announcing
-- include _subscriptions
-- include _retries
if redis.call('HGET', subscription, 'record') ~= as_read then return STALE end
if is_outdated(announced) then return SUBSCRIPTIONS end
-- A removal comes first, so that it runs even when Redis is at its memory limit.
redis.call('HDEL', outbox_state, 'breaker')
redis.call('HSET', subscription, 'record', record)
bump_version(announced.subscriptions_version)
redis.call('HDEL', outbox_state, 'failing', 'paused')
local happened = {
  unparked = redis.call('HDEL', outbox_state, 'parked') == 1,
  enabled = redis.call('HDEL', outbox_state, 'disabled') == 1,
}
count_outbox(outbox_state, announced.totals)
redis.call('HSET', outbox_state, 'resumed', resumed)
bring_forward(live.retries)
bring_forward(replayed.retries)
end_waiting(announced.schedule, lease, id, live, replayed, replay_queue)
announce(announced, happened, now_ms())
