"""The version of nos_tf, in one place: setup.py reads it, and any module may import it."""

__version__ = '0.2.0'
