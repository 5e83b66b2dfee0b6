"""Encoders: from an entry of `encoders` in params.yaml to vectors.

`weights.resolve_weights` brings an encoder's files to this machine; `encoder.load_encoder` makes
them encode texts under the entry's whole contract.
"""

import os

# Before anything imports the libraries that would send telemetry: they read these once.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
