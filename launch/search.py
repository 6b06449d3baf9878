"""Searches for update rules, as `nos-tf search` does.

python launch/search.py --gin_files gin/quickstart.gin --run_dir runs/quickstart
"""

from nos_tf.cli.search import main, search

__all__ = ['search']

if __name__ == '__main__':
    main()
