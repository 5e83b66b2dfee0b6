"""The store of vectors: each text is encoded once per encoder, whichever run needs it."""
