"""Trains policies on preferences with TRL, keeping the probability of each label."""
