"""Judge and policy inference.  Each module adapts one library; none knows of constitutions."""
