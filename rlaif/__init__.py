"""Preference labels from a constitution: batched AI judging with evidence, into DPO training."""

__version__ = "0.1.0"
