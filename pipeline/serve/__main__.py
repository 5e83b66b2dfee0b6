"""`python -m pipeline.serve`."""

from pipeline.core.interrupts import quit_at_once

with quit_at_once("serve"):
    from pipeline.serve.command import main

main()
