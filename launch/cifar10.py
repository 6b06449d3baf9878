"""Compares optimizers on images (Figures 5 and 7, Table 1): launch/compare.py, by the name that it had at first.

python launch/cifar10.py --gin_files gin/convnet_reduced.gin --run_dir runs/convnet
"""

from nos_tf.cli.compare import compare, main

__all__ = ['compare']

if __name__ == '__main__':
    main()
