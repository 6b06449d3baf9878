"""summary.json, which a run leaves at its end."""

import json
from pathlib import Path
from typing import Any

from nos_tf.errors import RunError
from nos_tf.renamed import renamed


def read_summary(run_dir: Path, launcher: str, *needed: str) -> dict[str, Any] | None:
    """Returns the summary of a run directory; None if there is none yet.

    Args:
        run_dir: of the run.
        launcher: that writes it.
        needed: names that are in each of its kind.

    Raises:
        RunError: it is damaged, or of another kind of run.
    """
    path = run_dir / 'summary.json'
    try:
        summary = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f'{path} is damaged ({error}): {_again(launcher)}') from error
    if not isinstance(summary, dict) or not all(name in summary for name in needed):
        raise RunError(f'{path} is not what {launcher} leaves, which has {", ".join(needed)}: {_again(launcher)}')
    return {**summary, **({'configuration': renamed(summary['configuration'])} if 'configuration' in summary else {})}


def _again(launcher: str) -> str:
    return f'run {launcher} with this --run_dir again, which writes it anew'
