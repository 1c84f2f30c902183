"""The whole service on one machine: `coursewire up`."""
