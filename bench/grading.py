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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests")]
from hostile_answers import hostile_answers

from reward import Grader


def ordinary(count, seed):
    """Responses of some 3,000 characters to `count` different questions, a third of them right, and the reference answers."""
    rng, responses, answers = random.Random(seed), [], []
    kinds = (lambda n: (str(n), str(n)), lambda n: (rf"\frac{{{2 * n}}}{{14}}", rf"\frac{{{n}}}{{7}}"), lambda n: (rf"\sqrt{{{4 * n}}}", rf"2\sqrt{{{n}}}"), lambda n: (f"x^2+{n}x", f"x(x+{n})"),
             lambda n: (f"({n}, {n + 1}]", f"({n},{n + 1}]"), lambda n: (f"{n / 8}", rf"\frac{{{n}}}{{8}}"))
    for _ in range(count):
        n, kind = rng.randint(3, 10**6), rng.choice(kinds)
        response, answer = kind(n) if rng.random() < 1 / 3 else (kind(n)[0], kind(n + 1)[1])
        responses.append("We compute step by step. " * 120 + rf"Hence the answer is $\boxed{{{response}}}$.")
        answers.append(answer)
    return responses, answers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--timeout", type=float, default=5.0)
    args = parser.parse_args()
    grader, hostile = Grader("math", args.workers, args.timeout), hostile_answers()
    grader.grade([r"\boxed{1}"] * 4 * args.workers, ["1"] * 4 * args.workers)  # started
    print(f"{args.workers} workers, {args.timeout:g} s an answer at most\n{'':<10}{'answers':>9}{'seconds':>9}{'answers/s':>11}{'slowest, s':>12}   verdicts")
    for name, (responses, answers) in {"before": ordinary(args.answers, 0), "hostile": ([rf"\boxed{{{h}}}" for h in hostile], ["42"] * len(hostile)), "after": ordinary(args.answers, 1)}.items():
        for worker in grader.workers:
            worker.slowest = 0.0
        begin = time.perf_counter()
        verdicts = grader.grade(responses, answers)
        seconds = time.perf_counter() - begin
        said = ", ".join(f"{n} {verdict}" for verdict, n in Counter(verdicts).most_common())
        print(f"{name:<10}{len(answers):>9}{seconds:>9.1f}{len(answers) / seconds:>11.0f}{max(worker.slowest for worker in grader.workers):>12.2f}   {said}", flush=True)
    grader.close()


if __name__ == "__main__":
    main()
