"""What searching is made of: runs and their order, indexes and their size, words and postings."""
