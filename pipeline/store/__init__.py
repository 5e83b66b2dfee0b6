"""The store of vectors: each text is encoded once per encoder, whatever run asks for it."""
