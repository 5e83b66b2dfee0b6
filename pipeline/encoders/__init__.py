"""Encoders: from an entry of `encoders` in params.yaml to vectors.

`weights.resolve_weights` brings an encoder's files to this machine; `loading.load_encoder` makes
them encode texts under the entry's whole contract.
"""

import os
import sys

# Before anything imports the libraries that would send telemetry: they read these once.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
# openvino and nncf send theirs by this package, and do without it where it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
