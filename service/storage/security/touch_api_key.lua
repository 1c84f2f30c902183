-- include _clock
if redis.call('EXISTS', api_key) == 0 then return end
local now = now_ms()
if now - tonumber(redis.call('HGET', api_key, 'last_used_at') or '0') < between_ms then return end
redis.call('HSET', api_key, 'last_used_at', now)
