"""The fields of requests and responses: their kinds, and how requests are read."""
