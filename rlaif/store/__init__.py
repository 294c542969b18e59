"""What is on disk: input data, the verdict cache, run directories."""
