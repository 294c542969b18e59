"""Lets models write: candidates, prompts, critiques and revisions."""
