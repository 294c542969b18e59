"""The judge inside other people's harnesses and trainers."""
