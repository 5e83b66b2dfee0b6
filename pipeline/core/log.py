"""The log of stages and commands; `stage.report_errors` shows it on stderr."""

import logging

log = logging.getLogger("pipeline")
