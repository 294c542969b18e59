"""Whether a data set has lost what people's text has: audits and the guard before a training."""
