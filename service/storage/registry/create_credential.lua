-- include _credentials
redis.call('HSET', credential, 'record', record, 'api_key', api_key)
redis.call('ZADD', credentials, created_at, id)
index_credential(credential, by_values, id, mark, base_url)
