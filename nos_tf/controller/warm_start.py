"""A learner that is told what others know: the first rules that it proposes are given."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from nos_tf.controller.agent import Agent, Metrics, Samples, State, UniformAgent
from nos_tf.dsl.primitives import temporary
from nos_tf.dsl.rule import STEPS_PER_ITERATION, UpdateRule
from nos_tf.dsl.space import SearchSpace


class WarmAgent:
    """Proposes given rules first, and then what another agent does, which has learned from them.

    Args:
      agent: who learns.
      space: what is legal.
      rules: those that the space cannot spell are left out.

    Raises:
      ValueError: that is all of them.
    """

    def __init__(self, agent: Agent, space: SearchSpace, rules: Sequence[UpdateRule]) -> None:
        self._agent = agent
        choices = spelled(space, rules)
        if not choices:
            shown = ', '.join(rule.infix for rule in rules)
            raise ValueError(f'WarmStart.rules: the space can spell none of {shown or "no rules"} (it may lack `left`)')
        self._choices = np.array(choices, np.int32)
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

    def revise(self, reward: Callable[[UpdateRule], float]) -> None:
        """Gives the agent the rewards that are known now, if it looks again."""
        if revise := getattr(self._agent, 'revise', None):
            revise(reward)

    def state(self) -> State:
        """Returns the state of the agent, and how many rules it was given."""
        return self._agent.state() | {'given': np.array(self._proposed)}

    def restore(self, state: State) -> None:
        """Takes up a state; raises ValueError for one of another learner or space."""
        if 'given' not in state:
            raise ValueError(f'the state is of another learner: it holds {", ".join(state)}, and no given rules')
        self._agent.restore({name: value for name, value in state.items() if name != 'given'})
        self._proposed = int(state['given'])


def spelled(space: SearchSpace, rules: Sequence[UpdateRule]) -> list[tuple[int, ...]]:
    """Returns the choices of the rules that the space can spell, each once."""
    choices: dict[tuple[int, ...], None] = {}
    for rule in rules:
        for program in (rule, rule.canonical()):
            with suppress(ValueError):
                choices[space.encode(_stretched(program, space))] = None
                break
    return list(choices)


def _stretched(program: UpdateRule, space: SearchSpace) -> UpdateRule:
    """The same program in as many iterations as the space has; what `left` does not read is another operand."""
    tokens = list(program.tokens)
    for k in range(program.iterations, space.iterations):
        tokens += (temporary(k), temporary(k), 'x', 'x', 'left')
    for start in range(0, len(tokens), STEPS_PER_ITERATION):
        if tokens[start + 4] == 'left':  # some spaces forbid that it is the same
            tokens[start + 1] = next((other for other in space.operands if other != tokens[start]), tokens[start])
    return UpdateRule(tuple(tokens))
