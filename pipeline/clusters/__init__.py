"""The clusters stage: group each locale's products by their vectors, and name the groups."""
