"""Several data sets made into one to train on: shares, quotas, duplicates, contamination, card."""
