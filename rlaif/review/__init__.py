"""People review what the judge is unsure of: a queue, a page, and labels that flow back."""
