"""`coursewire listen`: a subscriber for development."""
