"""`python -m pipeline.serve`."""

from pipeline.serve.command import main

main()
