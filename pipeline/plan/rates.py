"""What a unit of each stage's work takes: seconds, bytes of memory, bytes on disk.

Measured on two cores of an x86-64 server with AVX-512: the demo at 60,000 products, and ESCI's
shape at 100,000 and 400,000. `start` is what a stage takes before its first unit.
"""

from collections.abc import Mapping

MEASURED_PRODUCTS = 400_000

CHARACTERS_PER_SECOND = 11_000.0
"""How fast an encoder of 12 layers and 384 components reads, in float32."""

# stage: {unit, as `costs._amounts` counts it: (seconds, bytes of memory, bytes on disk)}
RATES: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "demo": {"start": (0.3, 180e6, 0), "texts": (180e-6, 2_500, 80)},
    "sample": {
        "start": (0.3, 280e6, 0), "rows": (2e-6, 200, 0), "products": (5e-6, 250, 470),
        "products at once": (0, 5_500, 0), "judgements": (0, 0, 25),
    },
    "clean": {
        "start": (0.1, 300e6, 0), "texts": (12e-6, 800, 470), "texts at once": (0, 4_500, 0),
        "judgements": (2e-6, 300, 8),
    },
    "embed": {
        "start": (0.5, 170e6, 0), "loaded": (6.0, 1_030e6, 0),
        "characters": (1 / CHARACTERS_PER_SECOND, 0, 0), "texts": (90e-6, 300, 0),
        "vector bytes": (0, 0, 1), "store bytes": (0, 0, 1),
    },
    # As `sample` and `clean`, of the judged products.
    "pairs": {
        "start": (0.7, 300e6, 0), "rows": (2e-6, 200, 0), "products": (20e-6, 2_000, 0),
        "judgements": (5e-6, 600, 300),
    },
    # Three times what reading takes in torch: forwards, and back for activations and weights.
    "train": {"start": (15.0, 1_300e6, 100e6), "tokens of a thread": (1 / 500, 8, 0)},
    "index": {
        "start": (0.05, 0, 0), "components": (20e-9, 0, 0), "links": (40e-9, 0, 0),
        "distances": (1 / 50e9, 0, 0), "index bytes": (1e-9, 0, 1), "memory bytes": (0, 1, 0),
    },
    "retrieve": {
        "start": (0.3, 230e6, 0), "components": (0.6e-9, 0, 0), "exact": (1 / 20e9, 0, 0),
        "quantised": (1 / 20e9, 0, 0), "walked": (1 / 40e9, 0, 0), "probed": (1 / 5e9, 0, 0),
        "rescored": (1e-9, 0, 0), "products": (0, 100, 0), "query components": (0, 12, 0),
        "index bytes": (0, 1, 0), "gathered bytes": (0, 1, 0),
        "results at once": (0, 330, 0), "results": (0.3e-6, 0, 5.5), "queries": (0, 0, 200),
    },
    "bm25": {
        "start": (0.5, 0, 0), "products": (8e-6, 0, 0), "counted": (0, 0, 650),
        "japanese counted": (0, 0, 900), "counted of a thread": (45e-6, 0, 0),
        "japanese counted of a thread": (560e-6, 0, 0), "scores of a thread": (1.4e-9, 0, 0),
        "memory bytes": (0, 1, 0), "results": (0.6e-6, 0, 5.5), "queries": (0.2e-3, 0, 200),
    },
    # As much as for the most pieces at once.
    "hybrid": {
        "start": (0.3, 230e6, 0), "products": (0.3e-6, 150, 0), "results at once": (0, 1_400, 0),
        "results": (0.6e-6, 0, 5.5), "queries": (0, 0, 200),
    },
    "rerank": {
        "start": (3.0, 900e6, 0), "characters": (1 / CHARACTERS_PER_SECOND, 0, 0),
        "scored": (90e-6, 1_300, 30), "results": (0.9e-6, 0, 5.5), "queries": (0, 0, 200),
    },
    # Of another engine's run, a text file; one run at a time.
    "systems": {
        "start": (0.3, 230e6, 0), "products": (0.3e-6, 150, 0), "given": (2e-6, 0, 5.5),
        "results": (0, 400, 0), "queries": (0, 0, 200),
    },
    "evaluate": {
        "start": (0.5, 240e6, 0), "products": (0.6e-6, 200, 0), "results at once": (0, 330, 0),
        "results": (0.6e-6, 0, 0), "queries": (0, 4_000, 600),
    },
    "encoder_scores": {
        "start": (0.5, 240e6, 0), "products": (0.3e-6, 200, 0), "judgements": (8e-6, 400, 2),
        "queries": (60e-6, 2_000, 20), "components": (2e-9, 0, 0),
    },
    "similar": {
        "start": (0.5, 480e6, 0), "exact": (1 / 20e9, 0, 0), "quantised": (1 / 20e9, 0, 0),
        "walked": (1 / 40e9, 0, 0), "probed": (1 / 5e9, 0, 0), "components": (1e-9, 0, 0),
        # For the comparison with bm25: its postings, as kept and weighed (13 bytes for each of a
        # product's terms, of which Japanese has 300), and the words of a product per judged query
        # compared with all others. Of the time, 20e-6 is for the postings.
        "products": (500e-6, 4_500, 0), "pairs": (2e-6, 0, 10), "index bytes": (0, 1, 0),
    },
    "duplicates": {
        "start": (0.4, 300e6, 50_000), "products": (20e-6, 300, 3),
        "calibrated": (800e-6, 17_000, 0), "pairs": (0.5e-6, 16, 0),
    },
    "clusters": {
        "start": (6.0, 250e6, 50_000), "products": (300e-6, 1_000, 25),
        "placed": (5e-3, 150_000, 0), "components": (0.2e-6, 0, 0),
    },
    "catalogue": {"start": (0.7, 200e6, 400_000), "products": (3e-6, 500, 0.2)},
    "report": {
        "start": (1.5, 230e6, 300_000), "locales": (0.02, 0, 0), "queries": (120e-6, 20_000, 850),
    },
}  # fmt: skip
