"""The demo stage: generate a small labelled catalogue in ESCI's files and schema."""
