"""Searches for update rules, the main job (Sections 3 and 4); takes the search up again if the directory holds it.

nos-tf search --gin_files gin/quickstart.gin --run_dir runs/quickstart
"""

from nos_tf.cli import commandline
from nos_tf import output
from nos_tf.evaluation.cluster.cluster import Cluster
from nos_tf.evaluation.cluster.config import check_used
from nos_tf.report import report
from nos_tf.search.search import Search
from nos_tf.tasks import builtin as _builtin  # noqa: F401 (for gin)


def search() -> None:
    """Runs the search that gin describes, or takes it up where it stopped, and reports."""
    parser = commandline.configured_parser(__doc__)
    parser.add_argument('--estimate', action='store_true', help='say how long it will take, and do nothing')
    parser.usage = f'{parser.usage} [--estimate]'
    arguments = commandline.parse_arguments(parser)
    configured = commandline.configure(arguments, Search)
    check_used(isinstance(configured.evaluator, Cluster), 'add gin/cluster.gin to --gin_files')
    if arguments.estimate:
        configured.run_dir = arguments.run_dir
        output.say(str(configured.estimate()))
        return
    configured.run(arguments.run_dir, allow_mixed=arguments.allow_mixed)
    output.say(str(report.write(arguments.run_dir)))


def main() -> None:
    """Runs the command."""
    commandline.main(search)
