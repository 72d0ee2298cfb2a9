"""Rewards: +1 for a right response, -1 for a wrong one. A grader is a function (response text, reference answer) -> bool."""
import numpy as np

RIGHT, WRONG = 1.0, -1.0


def exact(response, answer):
    """Right when the whole response is the answer, surrounding white space aside."""
    return response.strip() == answer.strip()


GRADERS = {"exact": exact}


class Grader:
    """Grades with the function registered under `name` in GRADERS."""

    def __init__(self, name):
        if name not in GRADERS:
            raise ValueError(f"reward={name!r} is unknown; there are {', '.join(GRADERS)} (add yours to GRADERS in reward.py)")
        self.name, self.right = name, GRADERS[name]

    def grade(self, responses, answers):
        """Responses and reference answers, both lists of N texts -> list of N rewards."""
        return [RIGHT if self.right(response, answer) else WRONG for response, answer in zip(responses, answers, strict=True)]

    def canary(self, answer):
        """A right and a wrong response to a real answer must score so. RuntimeError if not: every reward would be worthless."""
        got = self.grade([answer, answer + "1", ""], [answer] * 3)
        if got != [RIGHT, WRONG, WRONG]:
            raise RuntimeError(f"reward canary: {answer!r}, {answer + '1'!r} and '' scored {got} against {answer!r} by reward={self.name!r}; "
                               "the grader or the data set's answers are broken")


def grade_all(grader, rollouts, problems, group):
    """Reward of every rollout, in float64 [N]: each rank grades a part, once, and learns the others'. Sets `reward` on the records."""
    share = rollouts[len(rollouts) * group.rank // group.world : len(rollouts) * (group.rank + 1) // group.world]
    rewards = group.gather(grader.grade([r.text for r in share], [problems[r.prompt_id].answer for r in share]))
    for rollout, reward in zip(rollouts, rewards, strict=True):
        rollout.reward = reward
    return np.array(rewards)
