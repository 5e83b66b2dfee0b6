"""Compare two revisions: what moved between them, and whether the change is significant."""
