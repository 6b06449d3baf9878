"""A learner whose proposals are new: it never proposes again the update of a rule that it has learned from."""

import hashlib
from collections.abc import Callable

import numpy as np

from nos_tf.controller.agent import Agent, Metrics, Samples, State
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace

DRAWS = 20  # of a whole batch, until there are enough rules that are new


class DistinctAgent:
    """Proposes the rules of another agent, but for those that do what an earlier rule did, or a multiple of it.

    If the agent has too few new rules in `DRAWS` draws, old ones complete the batch. Log-probabilities are the agent's
    own: they do not take into account that rules were left out.

    Args:
      agent: who learns.
      space: what is legal.
    """

    def __init__(self, agent: Agent, space: SearchSpace) -> None:
        self._agent, self._space = agent, space
        self._seen: dict[int, None] = {}  # in the order of learning

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns count rules: new ones first, and old ones where the agent has too few."""
        found: dict[int, int] = {}  # hash of an update -> place among all that were drawn
        drawn: list[Samples] = []
        for draw in range(DRAWS):
            drawn.append(self._agent.propose(count, DRAWS * iteration + draw))
            for i, rule in enumerate(drawn[-1].choices):
                update = self._update_of(rule)
                if update not in self._seen:
                    found.setdefault(update, draw * count + i)
            if len(found) >= count:
                break
        choices, log_probs = (np.concatenate(part) for part in zip(*drawn, strict=True))
        places = list(found.values())
        repeated = [i for i in range(len(choices)) if i not in found.values()]
        places = [*places, *repeated][:count]
        return Samples(choices[places], log_probs[places])

    def _update_of(self, choices: np.ndarray) -> int:
        """Returns a hash of what a rule does, but for its factor; the same in every process."""
        text = ' '.join(self._space.rule(choices).direction()[0].tokens)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little', signed=True)

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Lets the agent learn from rules `[B, T]`, their rewards `[B]` and log_probs `[B]`."""
        metrics = self._agent.update(choices, rewards, log_probs)
        updates = [self._update_of(rule) for rule in choices]
        new = sum(update not in self._seen for update in dict.fromkeys(updates))
        self._seen.update(dict.fromkeys(updates))
        return metrics | {'new': new / len(updates)}

    def revise(self, reward: Callable[[UpdateRule], float]) -> None:
        """Gives the agent the rewards that are known now, if it looks again."""
        if revise := getattr(self._agent, 'revise', None):
            revise(reward)

    def state(self) -> State:
        """Returns the state of the agent, and hashes of all updates so far."""
        return self._agent.state() | {'seen': np.array(list(self._seen), np.int64)}

    def restore(self, state: State) -> None:
        """Takes up a state; raises ValueError for one of another learner or space."""
        if 'seen' not in state:
            raise ValueError(f'the state is of another learner: it holds {", ".join(state)}, and nothing seen')
        self._agent.restore({name: value for name, value in state.items() if name != 'seen'})
        self._seen = dict.fromkeys(state['seen'].tolist())
