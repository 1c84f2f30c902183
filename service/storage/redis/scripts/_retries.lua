-- Shared by the scripts that make retries due. Needs _clock.

-- Makes all retries of a queue due now.
local function bring_forward(retries)
  if redis.call('ZCARD', retries) > 0 then
    redis.call('ZUNIONSTORE', retries, 1, retries, 'WEIGHTS', 0)
  end
end

-- Makes a held outbox due now, unless it is empty. A running sender detects it by itself.
local function end_waiting(schedule, lease, id, live, replayed, replay_queue)
  if redis.call('EXISTS', lease) == 1 then return end
  redis.call('ZREM', schedule.claimed, id)
  if redis.call('XLEN', live.stream) + redis.call('XLEN', replayed.stream)
    + redis.call('LLEN', replay_queue) > 0 then
    redis.call('ZADD', schedule.due, 'LT', now_ms(), id)
  end
end
