-- Shared by the scripts that edit integrations: ending an epoch, and waking the walk.

-- Redis time in ms, as a decimal text
local function now_text()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- Takes what an integration has counted out of the totals.
local function leave_totals(integration, totals)
  for field, total in pairs({course_count = 'courses', quarantined = 'quarantined', held = 'held'}) do
    local count = tonumber(redis.call('HGET', integration, field) or '0')
    if count ~= 0 then redis.call('HINCRBY', totals, total, -count) end
  end
end

-- Forgets everything that belongs to the epoch in force and begins the next.
local function begin_epoch(integration, totals, epoch, kept)
  for _, key in ipairs(kept) do redis.call('UNLINK', key) end
  leave_totals(integration, totals)
  local before = redis.call('HGET', integration, 'epoch')
  redis.call('HDEL', integration, 'baselined', 'watermark', 'last_delta_at', 'last_sweep_at',
    'sweep_retry_at', 'course_count', 'quarantined', 'held', 'decision', 'failures', 'problem',
    'attention', 'walk', 'again', 'clock_skew_ms', 'observed')
  redis.call('HSET', integration, 'epoch', epoch, 'previous_epoch', before)
end

-- Makes the next walk due now, unless somebody is at work on the integration.
local function wake_walk(due, claimed, id)
  if not redis.call('ZSCORE', claimed, id) then
    redis.call('ZADD', due, 'LT', now_text(), id)
  end
end
