"""`coursewire apply`: brings integrations and subscriptions to the state in a file."""
