"""Tables that somebody gives, such as another engine's run: read, checked, put in order."""
