"""`coursewire doctor`: one function for each check, and the command that runs all of them."""
