"""Errors that end a run with one line."""


class RunError(Exception):
    """A run cannot start or go on; the message is one line that says why and what to do. Nothing paid for is lost."""


class ClusterLostError(RunError):
    """The cluster is gone, not by a mistake of anyone's: the same command is to be tried again."""
