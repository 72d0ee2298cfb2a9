"""
Answers graded a second by reward=math, before, amid and after answers made to hang it.
$ python bench/grading.py                  # 2 workers, 2,000 answers
$ python bench/grading.py --workers=8
"""
import argparse
import os
import random
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests"))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from hostile_answers import hostile_answers

from reward import Grader

# Number of a question -> an answer and its reference, equal but for how they are written.
QUESTIONS = (
    lambda n: (str(n), str(n)),
    lambda n: (rf"\frac{{{2 * n}}}{{14}}", rf"\frac{{{n}}}{{7}}"),
    lambda n: (rf"\sqrt{{{4 * n}}}", rf"2\sqrt{{{n}}}"),
    lambda n: (f"x^2+{n}x", f"x(x+{n})"),
    lambda n: (f"({n}, {n + 1}]", f"({n},{n + 1}]"),
    lambda n: (f"{n / 8}", rf"\frac{{{n}}}{{8}}"),
)
LINE = "{:<10}{:>9}{:>9}{:>11}{:>12}   {}"


def ordinary(count, seed):
    """Responses of some 3,000 characters to `count` different questions, a third of them right, and
    the reference answers."""
    rng = random.Random(seed)
    responses = []
    references = []
    for _ in range(count):
        number = rng.randint(3, 10**6)
        question = rng.choice(QUESTIONS)
        is_right = rng.random() < 1 / 3
        answer, reference = question(number)
        if not is_right:
            reference = question(number + 1)[1]
        responses.append("We compute step by step. " * 120
                         + rf"Hence the answer is $\boxed{{{answer}}}$.")
        references.append(reference)
    return responses, references


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--timeout", type=float, default=5.0)
    args = parser.parse_args()
    hostile = [rf"\boxed{{{answer}}}" for answer in hostile_answers()]
    phases = {
        "before": ordinary(args.answers, seed=0),
        "hostile": (hostile, ["42"] * len(hostile)),
        "after": ordinary(args.answers, seed=1),
    }
    grader = Grader("math", args.workers, args.timeout)
    # All workers are started before the first clock.
    grader.grade([r"\boxed{1}"] * 4 * args.workers, ["1"] * 4 * args.workers)
    print(f"{args.workers} workers, {args.timeout:g} s an answer at most")
    print(LINE.format("", "answers", "seconds", "answers/s", "slowest, s", "verdicts"))
    for phase, (responses, references) in phases.items():
        for worker in grader.workers:
            worker.slowest = 0.0
        begin = time.perf_counter()
        grades = grader.grade(responses, references)
        seconds = time.perf_counter() - begin
        slowest = max(worker.slowest for worker in grader.workers)
        verdicts = Counter(grade.verdict for grade in grades)
        counts = [f"{n} {verdict}" for verdict, n in verdicts.most_common()]
        print(LINE.format(phase, len(references), f"{seconds:.1f}",
                          f"{len(references) / seconds:.0f}", f"{slowest:.2f}",
                          ", ".join(counts)), flush=True)
    grader.close()


if __name__ == "__main__":
    main()
