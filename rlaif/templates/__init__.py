"""Prompt templates as text files that people edit: what judges and writers are told."""
