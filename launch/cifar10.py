"""Compares optimizers on images, with the ConvNet or a Wide ResNet (Figures 5 and 7, Table 1); goes on where it was.

python launch/cifar10.py --gin_files gin/convnet_reduced.gin --run_dir runs/convnet
"""

import commandline
from nos_tf.compare import funnel as _funnel  # noqa: F401  (gin files name what these modules register)
from nos_tf.compare.comparison import Comparison
from nos_tf.evaluation import machine
from nos_tf.evaluation.cluster.config import check_used
from nos_tf.report import comparison_report
from nos_tf.tasks import convnet as _convnet  # noqa: F401
from nos_tf.tasks import wide_resnet as _wide_resnet  # noqa: F401


def compare() -> None:
    """Runs the comparison that gin describes, or takes it up where it stopped, and reports."""
    arguments = commandline.parse_arguments(__doc__ or '')
    machine.use_one_cpu_thread()  # before an optimizer starts TensorFlow, should this be the process that trains
    comparison = commandline.configure(arguments, Comparison)
    check_used(False, 'comparisons on images train on this machine')
    comparison.run(arguments.run_dir, allow_mixed=arguments.allow_mixed)
    print(comparison_report.write(arguments.run_dir))


if __name__ == '__main__':
    commandline.main(compare)
