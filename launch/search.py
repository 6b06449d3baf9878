"""Searches for update rules, the main job (Sections 3 and 4); takes the search up again if the directory holds it.

python launch/search.py --gin_files gin/quickstart.gin --run_dir runs/quickstart
"""

import commandline
from nos_tf import Search
from nos_tf.evaluation.cluster.cluster import Cluster
from nos_tf.evaluation.cluster.config import check_used
from nos_tf.report import report


def search() -> None:
    """Runs the search that gin describes, or takes it up where it stopped, and reports."""
    arguments = commandline.parse_arguments(__doc__ or '')
    configured = commandline.configure(arguments, Search)
    check_used(isinstance(configured.evaluator, Cluster), 'add gin/cluster.gin to --gin_files')
    configured.run(arguments.run_dir, allow_mixed=arguments.allow_mixed)
    print(report.write(arguments.run_dir))


if __name__ == '__main__':
    commandline.main(search)
