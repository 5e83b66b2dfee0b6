"""This machine: its CPU, its memory, its threads, and what stages took on it."""
