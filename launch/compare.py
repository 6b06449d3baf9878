"""Compares optimizers, as `nos-tf compare` does.

python launch/compare.py --gin_files gin/convnet_reduced.gin --run_dir runs/convnet
"""

from nos_tf.cli.compare import main

if __name__ == '__main__':
    main()
