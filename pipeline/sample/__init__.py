"""The sample stage: draw queries, judgements and products of every locale from ESCI's files."""
