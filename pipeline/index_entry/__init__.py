"""The index_entry stage: an index's settings as artefacts, so that only their users run again."""
