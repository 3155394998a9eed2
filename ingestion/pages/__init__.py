"""The pages of what ingestion does: runs with their progress, and rejected rows by the rule that they broke."""
