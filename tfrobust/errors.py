"""Errors that a user can act on."""


class TFRobustError(Exception):
    """A failure told in one sentence: what was expected, what was found, what to do.

    The command line prints it without a traceback and exits with 1.
    """


class UsageError(TFRobustError):
    """A wrong flag, name or configuration value; the command line exits with 2."""
