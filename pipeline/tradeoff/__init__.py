"""Measure every index against exact search: what it finds, holds and takes."""
