"""A child small enough for tests: the procedure, on digits."""

from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.tasks.child import Child, ChildSetup
from nos_tf.tasks.convnet import ConvNet, ImageClassification
from nos_tf.tasks.data import Digits

CHILD = Child(learning_rates=(0.01, 0.1, 1.0), sweep_epochs=1)
TASK = ImageClassification(
    images=Digits(train_examples=400),
    network=ConvNet(filters=4),
    epochs=3,
    train_examples=200,
    batch_size=50,
)
SETUP = ChildSetup(CHILD, TASK, Vocabulary(2))
