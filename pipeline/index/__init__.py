"""The index stage: build each locale's FAISS index."""
