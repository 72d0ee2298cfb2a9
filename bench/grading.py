"""
Answers graded a second by reward=math, before, amid and after answers made to hang it; how often it
is wrong, beside math-verify alone; and the answers of a run that it refused as unfinished.
$ python bench/grading.py                  # 2 workers, 2,000 answers
$ python bench/grading.py --workers=8
$ python bench/grading.py --cases          # the hand-written table: tests/grading_cases.py
$ python bench/grading.py --cases --file=mine.py   # [(style, answer, reference, right, why)]
$ python bench/grading.py --unfinished=out/run     # trained with --samples=all
"""
import argparse
import json
import os
import random
import runpy
import sys
import time
from collections import Counter

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests"))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from hostile_answers import hostile_answers

from grader.answers import clean, extract
from grader.quantities import quantity
from reward import Grader

TABLE = os.path.join(os.path.dirname(__file__), "..", "tests", "grading_cases.py")

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


def math_verify(responses, references, patience=5):
    """The verdicts of math-verify alone, called as its manual calls it -> list of bool. What takes
    longer than `patience` seconds, by default its own, is not right."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.WARNING)
    return [bool(verify(parse(f"${reference}$", parsing_timeout=patience),
                        parse(response, parsing_timeout=patience), timeout_seconds=patience))
            for response, reference in zip(responses, references, strict=True)]


def math_verify_alone(response, reference):
    """The same of one response: also a reward."""
    return math_verify([response], [reference])[0]


def share(part, whole):
    return f"{len(part) / len(whole):.1%} of {len(whole)}" if whole else "-"


def judge_cases(path, grader, patience):
    """Prints how often `math` and math-verify call wrong answers right and refuse right ones, per
    style and in all, then the cases in which `math` is mistaken."""
    cases = runpy.run_path(path)["CASES"]
    responses = [rf"Hence the answer is $\boxed{{{case[1]}}}$." for case in cases]
    references = [case[2] for case in cases]
    verdicts = {
        "math": [grade.verdict == "right" for grade in grader.grade(responses, references)],
        "math-verify": math_verify(responses, references, patience),
    }
    print("| style | wrong called right: math | math-verify | right refused: math | math-verify |")
    print("|---|---|---|---|---|")
    for style in [*dict.fromkeys(case[0] for case in cases), "all"]:
        cells = []
        for is_right in (False, True):
            of_style = [i for i, case in enumerate(cases)
                        if style in (case[0], "all") and case[3] == is_right]
            for scorer in verdicts.values():
                cells.append(share([i for i in of_style if scorer[i] != is_right], of_style))
        print(f"| {style} | {' | '.join(cells)} |")
    for case, verdict in zip(cases, verdicts["math"], strict=True):
        if verdict != case[3]:
            print("called right:" if verdict else "refused:", *map(repr, case))


def judge_records(records, grader):
    """Per record of samples.jsonl, whether `math` calls the response right, and whether it refuses
    it though math-verify finds it equal and it is no written number: work left undone
    -> two lists of bool."""
    pairs = [(record["response"], record["answer"]) for record in records]
    distinct = list(dict.fromkeys(pairs))  # a policy repeats itself
    columns = list(zip(*distinct, strict=True))
    right = [grade.verdict == "right" for grade in grader.grade(*columns)]
    verdicts = {}
    for pair, is_right, is_equal in zip(distinct, right, math_verify(*columns), strict=True):
        answer = extract(pair[0])
        undone = answer and is_equal and not is_right and not quantity(clean(answer))
        verdicts[pair] = is_right, bool(undone)
    return [verdicts[pair][0] for pair in pairs], [verdicts[pair][1] for pair in pairs]


def count_unfinished(folder, grader):
    """Prints per step of a run the share of responses that `math` calls right, and of those that
    are unfinished."""
    with open(os.path.join(folder, "samples.jsonl")) as file:
        records = [json.loads(line) for line in file]
    print("step responses right unfinished")
    for step in sorted({record["step"] for record in records}):
        of_step = [record for record in records if record["step"] == step]
        right, unfinished = judge_records(of_step, grader)
        print(f"{step:4} {len(of_step):9} {sum(right) / len(of_step):5.3f} "
              f"{sum(unfinished) / len(of_step):10.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--patience", type=int, default=5, help="seconds for math-verify alone")
    parser.add_argument("--cases", action="store_true")
    parser.add_argument("--file", default=TABLE)
    parser.add_argument("--unfinished")
    args = parser.parse_args()
    grader = Grader("math", args.workers, args.timeout)
    if args.cases:
        judge_cases(args.file, grader, args.patience)
    elif args.unfinished:
        count_unfinished(args.unfinished, grader)
    else:
        measure_speed(grader, args)
    grader.close()


def measure_speed(grader, args):
    """Prints the answers a second of each phase."""
    hostile = [rf"\boxed{{{answer}}}" for answer in hostile_answers()]
    phases = {
        "before": ordinary(args.answers, seed=0),
        "hostile": (2 * hostile, ["42"] * len(hostile) + [r"x^2+\pi"] * len(hostile)),
        "after": ordinary(args.answers, seed=1),
    }
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


if __name__ == "__main__":
    main()
