"""`coursewire up`: the service's programs as child processes of one supervisor."""
