"""A learner that is told what others know: the first rules that it proposes are given."""

from collections.abc import Sequence

import numpy as np

from nos_tf.controller.agent import Agent, Metrics, Samples, State, UniformAgent
from nos_tf.dsl.primitives import temporary
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace


class WarmAgent:
    """Proposes given rules first, and then what another agent does, which has learned from them.

    Args:
      agent: who learns.
      space: what is legal.
      rules: those that the space cannot spell are left out.
    """

    def __init__(self, agent: Agent, space: SearchSpace, rules: Sequence[UpdateRule]) -> None:
        self._agent = agent
        self._choices = np.array(list(_spelled(space, rules)), np.int32).reshape(-1, space.num_steps)
        self._log_probs = UniformAgent(space, 0).log_prob(self._choices)
        self._proposed = 0  # of the rules, as far as `update` knows

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns given rules, the agent's where they end; log_probs of given ones are those of uniform choice."""
        given = slice(self._proposed, self._proposed + count)
        choices, log_probs = self._agent.propose(count, iteration)
        missing = count - len(self._choices[given])
        return Samples(
            np.concatenate([self._choices[given], choices[:missing]]),
            np.concatenate([self._log_probs[given], log_probs[:missing]]),
        )

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Lets the agent learn from rules `[B, T]`, their rewards `[B]` and log_probs `[B]`."""
        metrics = self._agent.update(choices, rewards, log_probs)
        self._proposed = min(self._proposed + len(rewards), len(self._choices))
        return metrics

    def state(self) -> State:
        """Returns the state of the agent, and how many rules it was given."""
        return self._agent.state() | {'given': np.array(self._proposed)}

    def restore(self, state: State) -> None:
        """Takes up a state; raises ValueError for one of another learner or space."""
        if 'given' not in state:
            raise ValueError(f'the state is of another learner: it holds {", ".join(state)}, and no given rules')
        self._agent.restore({name: value for name, value in state.items() if name != 'given'})
        self._proposed = int(state['given'])


def _spelled(space: SearchSpace, rules: Sequence[UpdateRule]) -> list[tuple[int, ...]]:
    """The choices of the rules that the space can spell, each once."""
    choices: dict[tuple[int, ...], None] = {}
    for rule in rules:
        program = rule.canonical()
        tokens = list(program.tokens)
        for k in range(program.iterations, space.iterations):  # iterations that hand the value on
            tokens += (temporary(k), space.operands[0], 'x', 'x', 'left')
        if tokens[4] == 'left':  # what it does not read may be any, and must be another in some spaces
            tokens[1] = next((other for other in space.operands if other != tokens[0]), tokens[0])
        try:
            choices[space.encode(UpdateRule(tuple(tokens)))] = None
        except ValueError:
            continue
    return list(choices)
