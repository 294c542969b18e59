"""Measures policies and judges: samples, win rates, agreement, each with its interval."""
