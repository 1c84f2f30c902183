"""`coursewire apply`: brings integrations and subscriptions to what a file says."""
