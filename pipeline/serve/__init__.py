"""A local page to search with: two systems side by side, filters, similar products; and JSON."""
