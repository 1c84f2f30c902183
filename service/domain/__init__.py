"""Pure decisions: no Redis, HTTP, RQ, Litestar, clock or randomness."""
