"""Joins stages, engine and store.  The only place with a loop over data."""
