"""One verdict over many revisions: which encoder and system is best, and who is surely worse."""
