"""Packaging of nos_tf. `make .venv` installs it in place, with the pinned versions of requirements.txt."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

TEST = [
    'pytest>=8',
    'pytest-xdist>=3.5',
    'hypothesis>=6.100',
    'nbclient>=0.10',
    'nbformat>=5.10',
    'ipykernel>=6.29',
    'ruff>=0.15',
    'mypy>=1.15',
]
GNMT = ['sentencepiece>=0.2', 'sacrebleu>=2.4', 'num2words>=0.5.13']  # for launch/gnmt/

setup(
    name='nos_tf',
    version=runpy.run_path(str(ROOT / 'nos_tf' / 'version.py'))['__version__'],
    description='Neural Optimizer Search with reinforcement learning, on TensorFlow 2 and Keras 3',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8') if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['nos_tf', 'nos_tf.*']),  # not gin/, launch/ and tests/: they are no packages
    package_data={
        'nos_tf.dsl': ['learning_rates.csv'],
        'nos_tf.tasks.builtin': ['figures.csv', 'rulers.csv'],
        'nos_tf.optimizers': ['templates/*.j2'],
    },
    python_requires='>=3.10',
    install_requires=[
        'tensorflow>=2.18',
        'keras>=3.10',
        'tensorboard>=2.18',  # tensorflow 2.21 no longer brings it, and tf.summary raises without it
        'tensorflow-datasets>=4.9.7',
        'importlib_resources>=6',  # tensorflow-datasets cannot prepare a data set without it, and does not bring it
        'tensorflow-probability>=0.25',
        'tf_keras>=2.18',  # tensorflow-probability cannot be imported without it
        'numpy>=1.26',
        'gin-config>=0.5',
        'scipy>=1.11',
        'scikit-learn>=1.4',
        'matplotlib>=3.8',
        'rich>=13',
        'psutil>=5.9',
        'cloudpickle>=3.0',
        'jinja2>=3.1',  # for --export
    ],
    extras_require={'test': TEST, 'gnmt': GNMT},
    entry_points={'console_scripts': ['nos-tf = nos_tf.cli:main']},
)
