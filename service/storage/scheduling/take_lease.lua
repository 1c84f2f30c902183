-- include _clock
-- include _leases
return take_lease(schedule, lease, id, claim, now_ms())
