"""`coursewire doctor`: one function for each examination, and the command that makes them all."""
