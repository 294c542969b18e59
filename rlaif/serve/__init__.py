"""The judge behind HTTP: `rlaif serve`."""
