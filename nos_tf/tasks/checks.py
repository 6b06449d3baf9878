"""Checks of configured values that many classes need; the messages name the gin binding."""


def check_counts(owner: object, *names: str, least: int = 1) -> None:
    """Raises ValueError where a field of `owner` is no whole number of at least `least`."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f'{type(owner).__name__}.{name} = {value!r}: must be a whole number, at least {least}')
