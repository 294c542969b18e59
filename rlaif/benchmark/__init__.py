"""Measures how close labeling comes to what the machine could do."""
