"""The similar stage: each product's nearest others, and what they are worth by the labels."""
