"""What others do instead, as the processes that it runs in."""
