"""Statistics on verdicts and labels: intervals, tests, agreement."""
