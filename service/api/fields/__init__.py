"""The fields of requests and answers: their kinds, and how requests are read."""
