r"""Serves as one worker or parameter server of a cluster, the one that TF_CONFIG names (Section 3.3).

TF_CONFIG='{"cluster": {"worker": ["127.0.0.1:2222"], "ps": ["127.0.0.1:2223"]}, "task": {"type": "ps", "index": 0}}' \
    python launch/server.py
"""

import argparse

from nos_tf.cli import commandline
from nos_tf.evaluation.cluster import server
from nos_tf.evaluation.cluster.config import ClusterConfig


def serve() -> None:
    """Serves until it is interrupted."""
    parser = commandline.bare_parser(__doc__ or '')
    parser.add_argument(
        '--threads',
        type=_count,
        default=1,
        metavar='N',
        help='of the CPU; rewards on more than 1, the default, are not those of the other evaluators',
    )
    arguments = parser.parse_args()
    server.serve(ClusterConfig.read(), arguments.threads)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f'{text!r}: must be a whole number from 1 to 1024')
    return int(text)


if __name__ == '__main__':
    commandline.main(serve)
