-- include _credentials
if redis.call('EXISTS', credential) == 0 then return GONE end
if as_read and redis.call('HGET', credential, 'record') ~= as_read then return STALE end
local uses = tonumber(redis.call('HGET', credential, 'uses') or '0')
if uses == 0 then delete_credential(credential, credentials, by_values, id) end
return uses
