"""What verdicts follow apart from content."""
