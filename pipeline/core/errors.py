"""The one exception a user is meant to read."""


class PipelineError(Exception):
    """Something the user can mend: what is wrong, where, the value found, and the way out.

    A stage turns it into one message on stderr and exit status 1. Every other exception is a bug
    and keeps its traceback.
    """
