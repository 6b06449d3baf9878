"""Compares optimizers on images, with the ConvNet or a Wide ResNet (Figures 5 and 7, Table 1); goes on where it was.

nos-tf compare --gin_files gin/convnet_reduced.gin --run_dir runs/convnet
"""

from nos_tf.cli import commandline
from nos_tf import output
from nos_tf.compare import funnel as _funnel  # noqa: F401  (gin files name what these modules register)
from nos_tf.compare.comparison import Comparison
from nos_tf.evaluation import machine
from nos_tf.evaluation.cluster.config import check_used
from nos_tf.report import comparison_report
from nos_tf.tasks import convnet as _convnet  # noqa: F401
from nos_tf.tasks import wide_resnet as _wide_resnet  # noqa: F401


def compare() -> None:
    """Runs the comparison that gin describes, or takes it up where it stopped, and reports."""
    arguments = commandline.parse_arguments(__doc__)
    machine.use_one_cpu_thread()  # before an optimizer starts TensorFlow, should this be the process that trains
    comparison = commandline.configure(arguments, Comparison)
    check_used(False, 'comparisons on images train on this machine')
    comparison.run(arguments.run_dir, allow_mixed=arguments.allow_mixed)
    output.say(str(comparison_report.write(arguments.run_dir)))


def main() -> None:
    """Runs the command."""
    commandline.main(compare)
