"""Bindings of the command line that nothing in the run reads: gin takes them, and they would change nothing."""

import re
from collections.abc import Sequence

import gin

_BINDING = re.compile(r'\s*((?:[\w./-]*/)?)(?:[\w.]+\.)?(\w+\.\w+)\s*=')  # [scope/][module.]Name.parameter = value
_OPERATIVE = re.compile(r'^((?:[\w./-]*/)?)(?:[\w.]+\.)?(\w+\.\w+) =', re.MULTILINE)


def check_bindings(bindings: Sequence[str]) -> None:
    """Checks that each binding is of something that has been made; to be called once the run has been.

    Files of configurations may say more than one run reads, such as of a solver that a later file replaces. What is
    written on the command line is meant for this run.

    Args:
        bindings: of `--gin_bindings`, as they were given.

    Raises:
        ValueError: one is not; the message names it, and says why.
    """
    read = set(map(''.join, _OPERATIVE.findall(gin.operative_config_str())))
    for text in bindings:
        for name in filter(None, map(_name_of, text.splitlines())):
            if name not in read:
                owner = name.partition('.')[0]
                raise ValueError(
                    f'--gin_bindings: {name} changes nothing, for nothing in this run is made by @{owner}(): bind that '
                    'where it is to be, or leave it out'
                )


def _name_of(line: str) -> str | None:
    found = _BINDING.match(line)
    return found and found[1] + found[2]
