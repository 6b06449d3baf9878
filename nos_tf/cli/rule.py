"""`nos-tf rule`: says what an update rule is, as `python -m nos_tf` does."""

from nos_tf import __main__, output


def main() -> None:
    """Runs the command."""
    output.command(__main__.main)
