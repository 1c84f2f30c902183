-- Shared by the scripts that list dead deliveries, or take them off the list.

-- Lists a delivery as dead, or lists it anew; returns 1 if it was not listed, else 0.
local function list_dead(dead, facts, position, now, attempts, rendering, order_key, reason)
  redis.call('HSET', facts, position,
    string.format('%.0f %s %s %s %s', now, attempts, rendering, order_key, reason))
  return redis.call('ZADD', dead, string.match(position, '^%d+'), position)
end

-- Takes a delivery off the list; returns 1 if it was listed, else 0.
local function unlist_dead(dead, facts, position)
  redis.call('HDEL', facts, position)
  return redis.call('ZREM', dead, position)
end
