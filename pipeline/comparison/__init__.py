"""Two revisions beside each other: what they hold, if they fit, what moved, how it is shown."""
