"""Run DVC so that an interruption loses nothing: all stages, or one experiment."""
