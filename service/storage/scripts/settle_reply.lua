-- Keeps the answer to a request with an idempotency key, or forgets the request so that it may
-- be made again, unless another one has taken its place meanwhile.
--
-- KEYS  1 reply
-- ARGV  1 what marks the request as running  2 the answer, '' to forget  3 lifetime s
-- Result 1 if that was done, else 0
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
return 1
