"""Claims about grading: right answers are right however written, and nothing a policy writes stops
or slows the run."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from grading_cases import CASES as TABLE
from grading_cases import RESPONSES
from hostile_answers import hostile_answers
from processes import python

import reward
from configurator import UsageError
from grader.answers import normal, string_match
from grader.finished import tree
from grader.mathematics import math
from grader.quantities import quantity, unit_of
from reward import VERDICTS, Grader, grade
from rollout import Rollout
from worlds.problems import Problem

CASES = [*RESPONSES]  # (response, reference answer, verdict)
for _, answer, gold, is_right, _ in TABLE:
    verdict = "right" if is_right else "wrong"
    CASES.append((rf"Hence the answer is $\boxed{{{answer}}}$.", gold, verdict))


def verdicts_of(grader, responses, references):
    return [grade.verdict for grade in grader.grade(responses, references)]


@pytest.fixture(scope="module")
def math_grader():
    grader = Grader("math")
    yield grader
    grader.close()


@pytest.fixture
def grader_from(tmp_path):
    """Makes graders from source text, each in a file of its own, and closes them."""
    number = itertools.count()
    graders = []

    def make(source, workers=1, timeout=5.0, solved_at=1.0, function="score"):
        path = tmp_path / f"grader{next(number)}.py"
        path.write_text(source)
        graders.append(Grader(f"{path}:{function}", workers, timeout, solved_at))
        return graders[-1]

    yield make
    for grader in graders:
        grader.close()


# ---------- right and wrong ----------


def test_every_case_of_the_hand_written_table(math_grader):
    assert len(TABLE) >= 500
    assert len(set(CASES)) == len(CASES)
    responses, references, _ = zip(*CASES, strict=True)
    verdicts = verdicts_of(math_grader, responses, references)
    wrong = [
        (response, gold, f"should be {verdict}, is {got}")
        for (response, gold, verdict), got in zip(CASES, verdicts, strict=True)
        if verdict != got
    ]
    assert wrong == []


def test_every_reference_answer_is_right_against_itself_and_passes_the_canary(math_grader):
    for gold in sorted({gold for _, gold, _ in CASES}):
        math_grader.canary(gold)


SAME_TEXT = [  # (answer, reference answer, is it the same normalised text)
    ("42", "42", True),
    ("025", "25", True),
    ("27.0", "27", True),
    ("1,000", "1000", True),
    (r"\frac12", "1/2", True),
    (r"\dfrac{1}{2}", r"\frac{1}{2}", True),
    (r"50\%", "50", True),
    (r"90^\circ", "90", True),
    (r"5\text{ cm}", "5", True),
    ("x=5", "5", True),
    (r"\text{East}", "east", True),
    ("(0, 1)", "(0,1)", True),
    (r"\left(0,1\right)", "(0,1)", True),
    ("C. 12", "C", True),
    (".5", "0.5", True),
    ("-0.50", "-0.5", True),
    ("42", "43", False),
    (r"\sqrt{12}", r"2\sqrt{3}", False),
    ("0.5", r"\frac{1}{2}", False),
    ("B", "C", False),
    ("10", "1", False),
    ("0", "00", True),
]


@pytest.mark.parametrize("answer, gold, same", SAME_TEXT)
def test_the_second_scorer_compares_normalised_strings_and_knows_no_algebra(answer, gold, same):
    assert string_match(rf"So \boxed{{{answer}}}", gold) is same
    assert not string_match(f"So {answer}", gold)


def test_the_second_scorer_calls_nothing_right_that_the_table_calls_wrong():
    """Except of units, which mean nothing to it."""
    passed = [case for case in TABLE
              if string_match(rf"\boxed{{{case[1]}}}", case[2]) and not case[3]]
    assert {style for style, *_ in passed} <= {"units", "multipliers, percent, money, degrees"}
    assert [case for case in RESPONSES if string_match(case[0], case[1])
            and case[2] != "right"] == []


def test_numbers_are_normalised_without_idle_zeros():
    assert normal("100") == "100"
    assert normal("0.10") == "0.1"
    assert normal("-007.50") == "-7.5"
    assert normal(".") == normal("")


def test_exact_grading_needs_no_process():
    grader = Grader("exact")
    verdicts = verdicts_of(grader, ["12", " 12\n", "120", "1", ""], ["12"] * 5)
    assert verdicts == ["right", "right", "wrong", "wrong", "wrong"]
    assert grader.workers == []


@pytest.mark.parametrize(
    "name, message",
    [
        ("exakt", "there are auto, exact, math"),
        ("none.py:score", "there is no file none.py"),
    ],
)
def test_an_unknown_grader_says_what_there_is(name, message):
    with pytest.raises(UsageError, match=message):
        Grader(name)


def test_rollouts_carry_verdict_and_score(math_grader):
    texts = [r"\boxed{1}", r"\boxed{1}", "1"]
    rollouts = [Rollout(i, 0, [], [], [], True, text) for i, text in enumerate(texts)]
    problems = [Problem(f"uid {i}", "prompt", answer) for i, answer in enumerate("121")]
    grade(math_grader, rollouts, problems)
    assert [(r.verdict, r.score) for r in rollouts] == [
        ("right", 1.0),
        ("wrong", 0.0),
        ("no_answer", 0.0),
    ]


# ---------- hostile answers ----------


def test_towers_are_refused_unread_by_the_size_of_their_value():
    begin = time.monotonic()
    towers = ("(9999^{9999})^{9999}", "(9999!)!", "2^{99!}", "(2^{9999})^{9003}", "x^{9^{9^9}}")
    for tower in towers:
        assert tree(tower) is None
        assert math(rf"\boxed{{{tower}}}", r"\sqrt{2}") is False
    assert time.monotonic() - begin < 2
    assert tree("2^{9999}") is not None


def test_every_word_of_a_unit_is_known_and_prefixes_stand_where_they_may():
    assert unit_of("km") == unit_of("kilometers") and unit_of("mm").scale * 10**6 == unit_of(
        "km").scale
    assert unit_of("J/(mol K)").bases == unit_of(r"\text{J mol}^{-1}\text{ K}^{-1}").bases
    for word in ("kstudents", "mmeter", "kilo", "foo", "c", "of course"):
        assert unit_of(word) is None, word
    assert quantity("3 dozen").value == 36 and quantity("3 foo") is None


@pytest.mark.slow
def test_no_hostile_answer_outlasts_the_deadline_or_breaks_the_grader():
    hostile = [rf"\boxed{{{answer}}}" for answer in hostile_answers()]
    assert len(hostile) >= 200
    deadline = 2.0
    grader = Grader("math", workers=2, timeout=deadline)
    ordinary = [rf"\boxed{{\frac{{{i}}}{{7}}}}" for i in range(60)]
    references = [f"{i}/7" for i in range(60)]
    assert set(verdicts_of(grader, ordinary, references)) == {"right"}

    verdicts = verdicts_of(grader, hostile, ["42"] * len(hostile))
    # An expression as the reference: now every answer is parsed.
    verdicts += verdicts_of(grader, hostile, [r"x^2+\pi"] * len(hostile))
    assert max(worker.slowest for worker in grader.workers) <= deadline + 1
    assert set(verdicts) <= set(VERDICTS)
    assert "right" not in verdicts
    # Whether or not some workers were killed, nobody notices.
    assert set(verdicts_of(grader, ordinary, references)) == {"right"}
    assert all(worker.process.poll() is None for worker in grader.workers)
    grader.close()


def test_the_next_answer_after_each_kind_of_death_is_right(grader_from):
    """Endless, stopped, dead, out of memory."""
    grader = grader_from(
        """
import os, signal
def score(response, answer):
    if response == "endless":
        while True: pass
    if response == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if response == "dead":
        os._exit(3)
    if response == "recursive":
        return score(response, answer)
    if response == "memory":
        raise MemoryError
    print("noise on standard output")
    return response == answer
""",
        timeout=1.0,
    )
    for kind in ("endless", "stopped", "dead", "recursive", "memory"):
        assert verdicts_of(grader, [kind, "1"], ["1", "1"]) == ["timeout", "right"]
    assert verdicts_of(grader, ["x" * 5_000_000, "\ud800\x00\n", "1"], ["1"] * 3) == [
        "wrong",
        "wrong",
        "right",
    ]


def test_the_children_of_a_grader_go_with_it(grader_from):
    """As of a grader that runs the response as a program."""
    grader = grader_from(
        """
import os, time
def score(response, answer):
    if response == "endless" and os.fork() == 0:
        time.sleep(1000)
    if response == "endless":
        time.sleep(1000)
    return True
""",
        timeout=1.0,
    )
    assert verdicts_of(grader, ["endless", "1"], ["1", "1"]) == ["timeout", "right"]


def test_workers_end_with_their_parent_in_the_middle_of_an_answer(tmp_path):
    begun = tmp_path / "begun"
    endless = tmp_path / "endless.py"
    endless.write_text(f"""
def score(response, answer):
    open({str(begun)!r}, "w").close()
    while True: pass
""")
    program = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
from reward import Grader
grader = Grader({f"{endless}:score"!r}, 1, 4.0)
print(grader.workers[0].process.pid, flush=True)
grader.grade(["a"], ["b"])
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    while not begun.exists():
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def test_signals_for_the_trainer_do_not_reach_the_workers(math_grader):
    """torchrun and Ctrl-C signal a whole process group."""
    assert all(os.getpgid(worker.process.pid) != os.getpgid(0) for worker in math_grader.workers)


def test_a_worker_that_died_idle_costs_nothing(math_grader):
    assert verdicts_of(math_grader, [r"\boxed{1}"] * 8, ["1"] * 8) == ["right"] * 8  # it started
    for worker in math_grader.workers:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    assert verdicts_of(math_grader, [r"\boxed{1}"] * 8, ["1"] * 8) == ["right"] * 8


def test_a_worker_that_keeps_too_much_memory_is_replaced_between_answers(monkeypatch):
    grader = Grader("math", workers=1)
    ask = [r"\boxed{\sqrt{8}}"], [r"2\sqrt{2}"]
    assert verdicts_of(grader, *ask) == ["right"]
    first = grader.workers[0].process.pid
    assert 10 < reward.resident(first) < reward.RESIDENT_MIB
    assert verdicts_of(grader, *ask) == ["right"] and grader.workers[0].process.pid == first
    monkeypatch.setattr(reward, "RESIDENT_MIB", 10)
    assert verdicts_of(grader, *ask) == ["right"]  # the last answer of the first process
    monkeypatch.undo()
    assert verdicts_of(grader, *ask) == ["right"] and grader.workers[0].process.pid != first
    grader.close()


def test_closing_in_the_middle_of_a_grading_leaves_nothing_behind(grader_from):
    source = "import time\ndef score(response, answer): time.sleep(1000)\n"
    grader = grader_from(source, workers=2, timeout=60.0)
    with ThreadPoolExecutor(1) as pool:
        grading = pool.submit(grader.grade, ["a"] * 20, ["b"] * 20)
        time.sleep(0.5)
        processes = [worker.process for worker in grader.workers]
        grader.close()
        with pytest.raises((RuntimeError, CancelledError)):
            raise grading.exception() or RuntimeError
    assert all(process.poll() is not None for process in processes)
    assert grader not in reward.OPEN


# ---------- a user's own ----------


def test_a_function_from_a_file_grades_and_may_import_its_neighbours(grader_from, tmp_path):
    (tmp_path / "neighbour.py").write_text("offset = 1\n")
    grader = grader_from("""
import neighbour, numpy
def score(response, answer):
    if not response:
        return None
    return numpy.bool_(int(response) == int(answer) + neighbour.offset)
""")
    assert verdicts_of(grader, ["3", "2", ""], ["2"] * 3) == ["right", "wrong", "no_answer"]


@pytest.mark.parametrize(
    "source, message",
    [
        ("import nothing_like_it", "does not start: ModuleNotFoundError"),
        ("scores = 1", "defines no function 'score'"),
        ("score = 1", "defines no function 'score'"),
        ("def score(:", "does not start: SyntaxError"),
        ("while True: pass", "took over 3 s to start"),
        ("import os; os._exit(1)", "the process died, or took"),
    ],
)
def test_a_grader_that_cannot_start_says_why(grader_from, source, message, monkeypatch):
    monkeypatch.setattr(reward, "START", 3.0 if "while" in source else 60.0)
    with pytest.raises(UsageError, match=message):
        grader_from(source).canary("42")


def test_a_score_between_0_and_1_is_partial_below_solved_at_and_right_from_it_on(grader_from):
    source = "import numpy\ndef score(response, answer): return eval(response)"
    responses = ["0.0", "0.25", "numpy.float32(0.5)", "0.75", "1", "True", "numpy.False_", "None"]
    scores = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 0.0, 0.0]
    partial, right = ["partial"], ["right"]
    for solved_at, expected in ((1.0, partial * 3 + right * 2), (0.5, partial + right * 4)):
        grades = grader_from(source, solved_at=solved_at).grade(responses, ["1"] * len(responses))
        assert [grade.score for grade in grades] == scores
        assert [grade.verdict for grade in grades] == ["wrong", *expected, "wrong", "no_answer"]


@pytest.mark.parametrize(
    "result, message",
    [
        ("float(response) == float(answer)", "failed on response '4%', answer '4': ValueError"),
        ("float('nan')", "reward=.*:score' failed on response '4%', answer '4': .* returned nan"),
        ("1.5", "returned 1.5; it must return a number from 0 to 1"),
        ("-0.1", "returned -0.1"),
        ("2", "returned 2; it must"),
        ("float('inf')", "returned inf"),
        ("'right'", "returned 'right'; it must return a number from 0 to 1, True, False, or None"),
        ("'0.5'", "returned '0.5'"),
        ("[1.0]", r"returned \[1.0\]"),
        ("1j", "returned 1j"),
        ("__import__('numpy').array([0.5])", r"returned array\(\[0.5\]\)"),
    ],
)
def test_a_grader_that_fails_names_the_response(grader_from, result, message):
    with pytest.raises(RuntimeError, match=message):
        grader_from(f"def score(response, answer): return {result}").grade(["4%"], ["4"])


@pytest.mark.parametrize(
    "result", ["True", "False", "None", "response.startswith(answer[:1])", "response in answer"]
)
def test_the_canary_sings_for_a_broken_grader(grader_from, result):
    with pytest.raises(UsageError, match="reward canary"):
        grader_from(f"def score(response, answer): return {result}").canary("42")


@pytest.mark.parametrize(
    "question", ["What is 41+1?", "41+1", r"Compute $\frac{84}{2}$.", "42", ""])
def test_the_canary_boxes_the_question_too(math_grader, question):
    math_grader.canary("42", question)


def test_the_canary_sings_where_repeating_the_question_is_right(grader_from):
    source = """
def score(response, answer): return response == "[41+1]" or response == f"[{answer}]"
score.example = lambda answer: f"[{answer}]"
"""
    grader_from(source).canary("42", "40+2")
    with pytest.raises(UsageError, match="reward canary.*41\\+1"):
        grader_from(source).canary("42", "41+1")


def test_the_canary_accepts_exact_grading_also_of_its_own_wrong_answer():
    Grader("exact").canary("42")
    Grader("exact").canary("zebra")


def test_a_grader_can_say_what_a_right_response_looks_like(grader_from):
    source = "import time\ndef score(response, answer): return response == f'[{answer}]'\n"
    with pytest.raises(UsageError, match="reward canary"):
        grader_from(source).canary("42")
    for broken in ("1 / 0", "time.sleep(9)"):
        example = f"score.example = lambda answer: {broken}\n"
        with pytest.raises(UsageError, match="its .example failed"):
            grader_from(source + example, timeout=1.0).canary("42")
    grader_from(source + "score.example = lambda answer: f'[{answer}]'\n").canary("42")


# ---------- the measurement ----------


def measured(*arguments):
    done = python("bench/grading.py", "--workers=1", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_rates_of_math_and_math_verify_are_printed_per_style_with_what_math_gets_wrong(tmp_path):
    cases = [("sums", "41+1", "42", False, "unfinished"), ("sums", "42", "42", True, ""),
             ("words", "42", "43", True, "a mistake of the file")]
    (tmp_path / "mine.py").write_text(f"CASES = {cases!r}")
    lines = measured("--cases", f"--file={tmp_path}/mine.py")
    assert lines[2:] == [
        "| sums | 0.0% of 1 | 100.0% of 1 | 0.0% of 1 | 0.0% of 1 |",
        "| words | - | - | 100.0% of 1 | 100.0% of 1 |",
        "| all | 0.0% of 1 | 100.0% of 1 | 50.0% of 2 | 50.0% of 2 |",
        "refused: 'words' '42' '43' True 'a mistake of the file'",
    ]


def test_the_share_of_unfinished_answers_of_a_run_is_printed_per_step(tmp_path):
    texts = [(0, r"\boxed{42}"), (0, r"\boxed{41}"), (1, r"\boxed{41+1}"), (1, "42")]
    records = [{"step": step, "response": text, "answer": "42"} for step, text in texts]
    (tmp_path / "samples.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
    assert [line.split() for line in measured(f"--unfinished={tmp_path}")][1:] == [
        ["0", "2", "0.500", "0.000"], ["1", "2", "0.000", "0.500"]]
