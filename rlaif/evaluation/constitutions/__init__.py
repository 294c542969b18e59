"""Tests, coverage and induction of constitutions."""
