"""The contract stage: an entry as an artefact, on which the locales that use it depend."""
