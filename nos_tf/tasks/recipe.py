"""What a long training of a Keras model on images is, and what it leaves (Section 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import gin
import keras

from nos_tf.config import Configured, Count, Incidental, Natural, at_least, bindings_of
from nos_tf.tasks.data import Images, ImageSource


@runtime_checkable
class Network(Protocol):
    """A family of networks."""

    def model(self, image_shape: tuple[int, int, int], classes: int, seed: int) -> keras.Model:
        """A new model that gives logits float32 [B, classes]; the same seed gives the same weights."""


class Curve(NamedTuple):
    """What was seen after each epoch."""

    loss: tuple[float, ...] = ()  # mean cross-entropy over the epoch, without weight decay
    validation: tuple[float, ...] = ()  # accuracy
    test: tuple[float, ...] = ()  # accuracy; for reports, never to choose by

    @property
    def epochs(self) -> int:
        """How many there have been."""
        return len(self.loss)

    def until(self, epochs: int) -> 'Curve':
        """Its beginning."""
        return Curve(*(values[:epochs] for values in self))


class Trained(NamedTuple):
    """A training that has ended."""

    curve: Curve  # shorter than was asked for if it diverged
    seconds: float
    diverged: bool

    def until(self, epochs: int) -> 'Trained':
        """What was known of it after so many epochs: what came later, such as that it diverged, is left out."""
        return self._replace(curve=self.curve.until(epochs), diverged=self.diverged and self.curve.epochs <= epochs)

    def as_json(self) -> dict[str, Any]:
        """It as JSON values."""
        return {**self._asdict(), 'curve': self.curve._asdict()}

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> 'Trained':
        """The inverse of `as_json`."""
        curve = Curve(**{name: tuple(values) for name, values in fields['curve'].items()})
        return cls(**{**fields, 'curve': curve})


@gin.register
@dataclass(frozen=True)
class Recipe(Configured):
    """All of a training but the optimizer, its learning rate and the seed.

    Args:
        images: what to classify.
        network: what is trained.
        epochs: of a whole training.
        batch_size: examples of an update; what is left of an epoch is dropped.
        train_examples: the first so many; None for all.
        test_examples: likewise.
        flips: mirror half of the training images.
        shift: move training images by up to so many pixels each way, reflecting at the edge.
        weight_decay: factor of the kernels that is added to their gradients, as an L2 penalty would.

    Raises:
        ValueError: a value out of range; the message names the binding.
    """

    images: ImageSource = gin.REQUIRED
    network: Network = gin.REQUIRED
    epochs: Annotated[Count, Incidental] = 300  # a longer training goes on from a shorter one
    batch_size: Count = 100
    train_examples: Count | None = None
    test_examples: Count | None = None
    flips: bool = False
    shift: Natural = 0
    weight_decay: Annotated[float, at_least(0)] = 0.0

    def load(self) -> Images:
        """The images, of which the recipe takes no more than there are.

        Raises:
            ValueError: it would; the message names the binding.
            FileNotFoundError: the data are not there; the message says how to get them.
        """
        images = self.images.load()
        for name, split in (('train_examples', images.train), ('test_examples', images.test)):
            wanted = getattr(self, name)
            if wanted is not None and wanted > len(split.labels):
                raise ValueError(f'Recipe.{name} = {wanted}: {images.name} has {len(split.labels)}')
        examples = len(images.train.head(self.train_examples).labels)
        if self.batch_size > examples:
            raise ValueError(f'Recipe.batch_size = {self.batch_size}: there are {examples} examples')
        if self.shift >= min(images.shape[:2]):
            raise ValueError(f'Recipe.shift = {self.shift}: images have {min(images.shape[:2])} pixels a side')
        return images

    def identity(self) -> dict[str, Any]:
        """All that a curve depends on but its length and the machine: name of each part -> JSON value."""
        return bindings_of(self) | {'images': self.load().fingerprint()}
