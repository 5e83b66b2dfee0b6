"""The embed stage: encode each locale's products and queries into `.npy` shards."""
