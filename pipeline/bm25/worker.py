"""`python -m pipeline.bm25.worker LANGUAGE`: one of the processes that count terms."""

import sys

from pipeline.bm25.analysers import analyser_for
from pipeline.bm25.counting import SCHEMA, Counter
from pipeline.core.workers import answer_all

if __name__ == "__main__":
    counter = Counter(analyser_for(sys.argv[1]))
    answer_all(lambda texts: counter.count(texts["text"]).batch(), SCHEMA)
