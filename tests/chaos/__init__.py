"""Everything goes wrong at once, and an independent checker holds what arrived against what was."""
