"""A task: data, a model, a loss and a measure, which an optimizer is judged on.

`Task` is a value that pickles, and says what the task is; `LoadedTask` is the task in a process that trains, with its
data. Functions of tensors are pure and hold no data: one graph of them runs anywhere.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import keras
import tensorflow as tf


class Gradient(NamedTuple):
    """The result of one training step, before the optimizer."""

    loss: tf.Tensor  # float32 []
    gradient: tf.Tensor  # of the loss with respect to the weights, float32 [P]
    state: Any  # of the model after the step


@runtime_checkable
class Task(Protocol):
    """A task as a value: small, and the same wherever it is unpickled.

    One that optimizers are to be compared on has `of_steps(steps)` too, which returns the task with a training of at
    least so many updates, whose first updates see the same examples.
    """

    @property
    def chance(self) -> float | None:
        """The measure of a model that has learned nothing; None where there is no such number."""

    def identity(self) -> dict[str, Any]:
        """Returns all that a measure depends on but the machine: name of each part -> JSON value."""

    def load(self) -> 'LoadedTask':
        """Returns the task with its data.

        Raises:
            ValueError: the data do not fit the task; the message names the binding.
            FileNotFoundError: the data are not there; the message says how to get them.
        """


class LoadedTask(Protocol):
    """A task in a process that trains. Weights are one vector, float32 [P]; `str` names it where memory runs out.

    It may have more:

    - `schedule(step)`, the factor of the learning rate at a step, float32 [];
    - `decay`, float32 [P], how much of itself each weight loses before an update, times the learning rate;
    - `jit_compile`, True where XLA is to compile training and measure;
    - `is_local`, True where its functions of tensors read what only this process has;
    - `judge(model, train, measure)`, the measure of a whole training where it is not that of its end;
    - `lowest`, where a reward is clipped, and `untrained`, the measure before training, which is not, or a function of
      the state of the model that returns it;
    - `undefined`, a sentence for a measure that is no number;
    - `failure`, a sentence where a function of tensors has failed in Python, else '';
    - `optimizer(rule, learning_rate, steps, **arguments)`, which trains a model as the task does;
    - `variables`, name and shape of the parts that the weights consist of, for optimizers that read shapes.
    """

    data: Any  # tensors, in whatever structure; the functions of tensors below are given them
    steps: int  # updates of a whole training
    steps_per_epoch: int

    def start(self, seed: int) -> tuple[tf.Tensor, Any]:
        """Returns the weights and the state of the model that a seed starts from; it is not traced."""

    def batches(self, seed: tf.Tensor) -> Any:
        """Returns the examples of all steps, or whatever `gradient` finds them by: tensors, in whatever structure."""

    def gradient(self, data: Any, batches: Any, step: tf.Tensor, weights: tf.Tensor, state: Any) -> Gradient:
        """Returns the gradient of a training step, int32 [] from 0 on."""

    def measure(self, data: Any, weights: tf.Tensor, state: Any) -> tf.Tensor:
        """Returns how good a model is on the validation set, float32 []: the higher, the better.

        A number whatever the weights are, also where a training has diverged and they are none.
        """


def check_backend(work: str) -> None:
    """Checks that Keras computes with TensorFlow, whose graphs tasks are written in.

    Args:
        work: what is to be done, for the message.

    Raises:
        ValueError: it computes with another backend.
    """
    if (backend := keras.backend.backend()) != 'tensorflow':
        raise ValueError(
            f'{work} needs the TensorFlow backend of Keras, and this is {backend}: set KERAS_BACKEND=tensorflow before '
            'Keras is imported'
        )
