"""The encoder_scores stage: measure an encoder by itself, on the labels of the judged pairs."""
