"""Numbers that Bello et al. (ICML 2017) report, to stand beside ours."""

from typing import NamedTuple


class Accuracies(NamedTuple):
    """A row of Table 1, in per cent."""

    final_validation: float
    final_test: float
    best_validation: float
    best_test: float  # at the best validation accuracy


TABLE_1 = {
    'keras.SGD': Accuracies(92.0, 91.8, 92.9, 91.9),
    'keras.SGD with momentum=0.9': Accuracies(92.7, 92.1, 93.1, 92.3),
    'keras.Adam': Accuracies(90.4, 90.1, 91.8, 90.7),
    'keras.RMSprop': Accuracies(90.7, 90.3, 91.4, 90.3),
    'powersign_plus_clip': Accuracies(92.5, 92.4, 93.8, 93.1),
    'clip_momentum_exp_v': Accuracies(93.5, 92.5, 93.8, 92.7),
    'momentum_exp_v': Accuracies(93.1, 92.4, 93.8, 92.6),
    'powersign': Accuracies(93.1, 92.8, 93.8, 92.8),
    'drop30_powersign': Accuracies(92.7, 92.2, 93.6, 92.7),
    'momentum_exp_g2': Accuracies(93.1, 92.5, 93.6, 92.4),
    'drop10_momentum_over_exp_g2': Accuracies(92.6, 92.4, 93.5, 93.0),
    'drop10_powersign': Accuracies(92.8, 92.4, 93.5, 92.2),
    'clip_rmsprop_plus_drop30_momentum': Accuracies(90.8, 90.8, 91.4, 90.9),
    'adam_powersign': Accuracies(92.6, 92.0, 93.4, 92.0),
    'adam_exp_m': Accuracies(92.9, 92.8, 93.3, 92.7),
    'sgd_plus_drop30_momentum': Accuracies(93.4, 92.9, 93.7, 92.9),
    'drop10_momentum_exp_g3': Accuracies(92.8, 92.7, 93.7, 92.8),
    'sgd_minus_clip_g2': Accuracies(93.4, 92.8, 93.7, 92.8),
    'exp_sgd_minus_exp_momentum': Accuracies(93.2, 92.5, 93.5, 93.1),
    'drop30_momentum_exp_w': Accuracies(93.2, 93.0, 93.5, 93.2),
}
"""By the text of the optimizer (`nos_tf.optimizers.contender`), on WRN-28-10; `known.py` has the rules."""

FIGURES_5_AND_7 = (
    'powersign_plus_clip',  # Optimizer_1
    'drop30_momentum_exp_w',  # Optimizer_2
    'keras.SGD',
    'keras.SGD with momentum=0.9',
    'keras.Adam',
    'keras.RMSprop',
)
"""What the paper draws."""
