-- Shared by the scripts that make retries due.

-- Makes all retries of a queue due now.
local function bring_forward(retries)
  if redis.call('ZCARD', retries) > 0 then
    redis.call('ZUNIONSTORE', retries, 1, retries, 'WEIGHTS', 0)
  end
end
