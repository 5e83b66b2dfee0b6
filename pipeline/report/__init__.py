"""The report stage: all locales and systems side by side, as a page, a table and numbers."""
