"""Pure steps: rows to pairs, pairs to questions, answers to verdicts, verdicts to preferences.

No input or output, no model, no clock: everything here is a function of its arguments.
"""
