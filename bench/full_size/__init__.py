"""Generate a made-up catalogue of ESCI's size and shape."""
