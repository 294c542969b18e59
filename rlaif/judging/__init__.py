"""What is asked of a judge and what follows from its answers: pure, no engine, no I/O."""
