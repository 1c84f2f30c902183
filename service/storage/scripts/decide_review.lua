-- include _epochs
-- Takes the decision on what is held. Exactly that set is set apart, to be carried out by the
-- next turn; what comes to be held afterwards is another review.
--
-- KEYS  1 integration  2 held  3 review  4 decided  5 due walks  6 claimed walks
-- ARGV  1 id  2 epoch as read  3 version of the review as shown  4 'apply' or 'discard'
-- Result 'OK', 'EPOCH', 'BUSY' (the last decision is being carried out), 'NONE' or 'STALE'
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[2] then return 'EPOCH' end
if redis.call('EXISTS', KEYS[2]) == 0 then
  return redis.call('EXISTS', KEYS[4]) == 1 and 'BUSY' or 'NONE'
end
if redis.call('HGET', KEYS[3], 'version') ~= ARGV[3] then return 'STALE' end
if redis.call('EXISTS', KEYS[4]) == 1 then return 'BUSY' end
redis.call('HSET', KEYS[1], 'decision', ARGV[4])
redis.call('RENAME', KEYS[2], KEYS[4])
redis.call('DEL', KEYS[3])
wake_walk(KEYS[5], KEYS[6], ARGV[1])
return 'OK'
