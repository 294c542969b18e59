"""A decoder for CPUs: kernels of its own on packed weights."""
