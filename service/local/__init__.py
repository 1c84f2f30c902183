"""Running everything on one machine: `coursewire up`."""
