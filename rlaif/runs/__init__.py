"""The run folder: its files, readers and writers."""
