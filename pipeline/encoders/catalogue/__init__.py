"""The entries of `encoders` in params.yaml: shown, checked, and added from a model's own files."""
