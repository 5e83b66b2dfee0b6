"""Train an encoder or a reranker on ESCI's labels.

The loop is our own, since sentence-transformers' trainer does not fit three rules here. Its
checkpoints are pickles. Its batches do not know that two products are E of one query, so they take
the one for a wrong answer to the other. And it needs five packages more. The losses other than
mnrl are sentence-transformers' own.

What a step does follows from the settings, the seed and the step's number alone: its pairs, its
hard negatives and its dropout. So a checkpoint is the weights, AdamW's two moments and a number,
and a training that was killed ends with the bytes of one that was not.
"""
