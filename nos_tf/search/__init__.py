"""The search itself, where the two towers meet: rules go out as tokens, rewards come back as numbers."""


class RunError(Exception):
    """A run cannot start or go on; the message is one line that says why and what to do. Nothing paid for is lost."""


class ClusterLostError(RunError):
    """The cluster is gone, not by a mistake of anyone's: the same command is to be tried again."""
