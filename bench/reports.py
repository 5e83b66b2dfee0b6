"""Where the reports are that only benchmarks and proofs read; `layout` names those of commands."""

from pipeline.core import layout

_FOLDER = layout.ENCODE_BENCH.parent

BATCHES = _FOLDER / "batches.md"
EVALUATE = _FOLDER / "evaluate.json"
FAULTS = _FOLDER / "faults.json"
FUZZ = _FOLDER / "fuzz.json"
INDEXES = _FOLDER / "indexes.md"
INTERRUPTIONS = _FOLDER / "interruptions.json"
PROOFS = _FOLDER / "proofs.json"
RAY = _FOLDER / "ray.json"
RERANK = _FOLDER / "rerank.md"
SPELLING = _FOLDER / "spelling.md"
