"""The RQ worker, its queues and its event loop."""
