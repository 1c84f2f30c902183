"""`coursewire backup` and `coursewire restore`: everything in Redis to a file, and back."""
