"""The normalisation of texts: queries and products are normalised by the same rules."""
