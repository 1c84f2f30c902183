-- Shared by the scripts that edit integrations: ending an epoch, and waking the poll. Needs _clock.

-- Subtracts an integration's counts from the totals.
local function leave_totals(integration, totals)
  for field, total in pairs({course_count = 'courses', quarantined = 'quarantined', held = 'held'}) do
    local count = tonumber(redis.call('HGET', integration, field) or '0')
    if count ~= 0 then redis.call('HINCRBY', totals, total, -count) end
  end
end

-- Deletes the keys of an epoch.
local function forget_epoch(kept)
  for _, key in pairs(kept) do redis.call('UNLINK', key) end
end

-- Deletes the keys of the current epoch and starts the next.
local function begin_epoch(integration, totals, epoch, kept)
  forget_epoch(kept)
  leave_totals(integration, totals)
  local before = redis.call('HGET', integration, 'epoch')
  redis.call('HDEL', integration, 'baselined', 'watermark', 'last_delta_at', 'last_full_at',
    'full_retry_at', 'course_count', 'quarantined', 'held', 'decision', 'failures', 'problem',
    'attention', 'poll', 'again', 'clock_skew_ms', 'observed')
  redis.call('HSET', integration, 'epoch', epoch, 'previous_epoch', before)
end

-- Makes the next poll due now, unless a worker holds the lease of the integration.
local function wake_poll(schedule, id)
  if not redis.call('ZSCORE', schedule.claimed, id) then
    redis.call('ZADD', schedule.due, 'LT', now_ms(), id)
  end
end
