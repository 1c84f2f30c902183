"""Events: their contents and their ids."""
