"""Preference labels in the formats of other trainers."""
