"""Names of bindings that have moved: what files of before call them, gin files and stores alike."""

import re
from collections.abc import Mapping
from typing import Any

NAMES = {
    'Child.images': 'ImageClassification.images',
    'Child.network': 'ImageClassification.network',
    'Child.epochs': 'ImageClassification.epochs',
    'Child.train_examples': 'ImageClassification.train_examples',
    'Child.batch_size': 'ImageClassification.batch_size',
}
"""Old name -> new name."""

_BINDING = re.compile(rf'^(\s*)({"|".join(map(re.escape, NAMES))})(?=\s*=)', re.MULTILINE)
_KINDS = {'nos_tf.tasks.recipe.Trained': 'nos_tf.tasks.training.Trained'}  # of trainings in a store
_CLASSES = {'Child.network': 'ConvNet', 'Child.constants': 'RuleConstants'}


def renamed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an identity that was written before, in the names of today: JSON values.

    Parts of a value were objects under its name; now each of their fields has a name of its own.

    >>> renamed({'Child.images': {'source': 'Digits', 'noise': 0.5}, 'Child.seed': 0})
    {'ImageClassification.images': '@Digits()', 'Digits.noise': 0.5, 'Child.seed': 0}
    """
    found: dict[str, Any] = {}
    for name, value in identity.items():
        new = NAMES.get(name, name)
        if isinstance(value, dict) and (name in _CLASSES or {'source', 'kind'} & set(value)):
            parts = dict(value)
            kind = _CLASSES.get(name) or parts.pop('source' if 'source' in parts else 'kind')
            found[new] = f'@{kind}()'
            found.update({f'{kind}.{field}': part for field, part in parts.items()})
        else:
            found[new] = _KINDS.get(value, value) if name == 'trainings' else value
    return found


def rename_bindings(text: str) -> tuple[str, dict[str, str]]:
    """Returns lines of gin with the names of today, and which old names were among them: old -> new.

    >>> rename_bindings('Child.epochs = 3')
    ('ImageClassification.epochs = 3', {'Child.epochs': 'ImageClassification.epochs'})
    """
    found = {old: NAMES[old] for _, old in _BINDING.findall(text)}
    return _BINDING.sub(lambda match: match[1] + NAMES[match[2]], text), found
