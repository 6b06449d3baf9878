"""The error that a person can mend, told apart from those that we have to."""


class RunError(Exception):
    """A run cannot start or go on; the message is one line that says why and what to do. Nothing paid for is lost."""
