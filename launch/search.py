"""Searches for update rules, the main job (Sections 3 and 4); takes the search up again if the directory holds it.

python launch/search.py --gin_files gin/quickstart.gin --run_dir runs/quickstart
"""

import os

import commandline
from nos_tf import Search
from nos_tf.report import report
from nos_tf.search import RunError
from nos_tf.search.cluster import Cluster


def search() -> None:
    """Runs the search that gin describes, or takes it up where it stopped, and reports."""
    arguments = commandline.parse_arguments(__doc__ or '')
    configured = commandline.configure(arguments, Search)
    if os.environ.get('TF_CONFIG') and not isinstance(configured.evaluator, Cluster):
        raise RunError('TF_CONFIG names a cluster that would be idle: add gin/cluster.gin to --gin_files, or unset it')
    configured.run(arguments.run_dir, allow_mixed=arguments.allow_mixed)
    print(report.write(arguments.run_dir))


if __name__ == '__main__':
    commandline.main(search)
