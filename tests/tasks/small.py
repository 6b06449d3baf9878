"""A child small enough for tests: the procedure on digits."""

from nos_tf.tasks.child import Child
from nos_tf.tasks.convnet import ConvNet
from nos_tf.tasks.data import Digits

CHILD = Child(
    images=Digits(train_examples=400),
    network=ConvNet(filters=4),
    learning_rates=(0.01, 0.1, 1.0),
    sweep_epochs=1,
    epochs=3,
    train_examples=200,
    batch_size=50,
)
