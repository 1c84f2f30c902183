"""Catalogues, poll turns, reviews and rate budgets."""
