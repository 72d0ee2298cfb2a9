"""Rewards: +1 for a right response, -1 for a wrong one. A grader is a function (response text, reference answer) -> bool; where the bare
answer would not be right, its attribute `example`, answer -> right response, says what is."""
import numpy as np

from configurator import UsageError

RIGHT, WRONG = 1.0, -1.0


def exact(response, answer):
    """Right when the whole response is the answer, surrounding white space aside."""
    return response.strip() == answer.strip()


GRADERS = {"exact": exact}


class Grader:
    """Grades with the function registered under `name` in GRADERS."""

    def __init__(self, name):
        if name not in GRADERS:
            raise UsageError(f"reward={name!r} is unknown; there are {', '.join(GRADERS)} (add yours to GRADERS in reward.py)")
        self.name, self.right = name, GRADERS[name]

    def grade(self, responses, answers):
        """Responses and reference answers, both lists of N texts -> list of N rewards."""
        rewards = []
        for response, answer in zip(responses, answers, strict=True):
            try:
                rewards.append(RIGHT if self.right(response, answer) else WRONG)
            except Exception as error:
                raise RuntimeError(f"reward={self.name!r} failed on response {response!r}, answer {answer!r}") from error
        return rewards

    def canary(self, answer):
        """A right and two wrong responses to a real answer must score so. UsageError if not: every reward would be worthless."""
        example = getattr(self.right, "example", lambda answer: answer)
        responses = [example(answer), example(answer + "1"), ""]
        got = self.grade(responses, [answer] * 3)
        if got != [RIGHT, WRONG, WRONG]:
            raise UsageError(f"reward canary: {', '.join(map(repr, responses))} scored {got} against {answer!r} by reward={self.name!r}; mend the grader "
                             "(give it an .example if the bare answer is not a right response) or the data set's answers")


def grade_all(grader, rollouts, problems, group):
    """Reward of every rollout, in float64 [N]: each rank grades a part, once, and learns the others'. Sets `reward` on the records."""
    share = rollouts[len(rollouts) * group.rank // group.world : len(rollouts) * (group.rank + 1) // group.world]
    rewards = group.gather(grader.grade([r.text for r in share], [problems[r.prompt_id].answer for r in share]))
    for rollout, reward in zip(rollouts, rewards, strict=True):
        rollout.reward = reward
    return np.array(rewards)
