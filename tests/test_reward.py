"""Claims about grading: right answers are right however written, and nothing a policy writes stops or slows the run."""
import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from grading_cases import ANSWERS, RESPONSES
from hostile_answers import hostile_answers

import reward
from answers import normal, string_match
from configurator import UsageError
from reward import VERDICTS, Grader, grade
from rollout import Rollout

CASES = [(rf"Hence the answer is $\boxed{{{answer}}}$.", gold, verdict) for cases in ANSWERS.values() for answer, gold, verdict in cases] + RESPONSES


@pytest.fixture(scope="module")
def math_grader():
    grader = Grader("math")
    yield grader
    grader.close()


@pytest.fixture
def own(tmp_path):
    """A grader from source text, in a file of its own."""
    number, made = itertools.count(), []

    def make(source, name="score", **settings):
        path = tmp_path / f"own{next(number)}.py"
        path.write_text(source)
        made.append(Grader(f"{path}:{name}", **{"workers": 1, "timeout": 5.0} | settings))
        return made[-1]

    yield make
    for grader in made:
        grader.close()


# ---------- right and wrong ----------

def test_every_case_of_the_hand_written_table(math_grader):
    assert len(CASES) >= 120 and len(set(CASES)) == len(CASES)
    got = math_grader.grade([response for response, _, _ in CASES], [gold for _, gold, _ in CASES])
    wrong = [(response, gold, f"should be {verdict}, is {is_}") for (response, gold, verdict), is_ in zip(CASES, got) if verdict != is_]
    assert wrong == []


def test_every_reference_answer_is_right_against_itself_and_passes_the_canary(math_grader):
    for gold in sorted({gold for _, gold, _ in CASES}):
        math_grader.canary(gold)


@pytest.mark.parametrize("answer, gold, same", [
    ("42", "42", True), ("025", "25", True), ("27.0", "27", True), ("1,000", "1000", True), (r"\frac12", "1/2", True), (r"\dfrac{1}{2}", r"\frac{1}{2}", True), (r"50\%", "50", True),
    (r"90^\circ", "90", True), (r"5\text{ cm}", "5", True), ("x=5", "5", True), (r"\text{East}", "east", True), ("(0, 1)", "(0,1)", True), (r"\left(0,1\right)", "(0,1)", True), ("C. 12", "C", True),
    (".5", "0.5", True), ("-0.50", "-0.5", True), ("42", "43", False), (r"\sqrt{12}", r"2\sqrt{3}", False), ("0.5", r"\frac{1}{2}", False), ("B", "C", False), ("10", "1", False), ("0", "00", True),
])
def test_the_second_scorer_compares_normalised_strings_and_knows_no_algebra(answer, gold, same):
    assert string_match(rf"So \boxed{{{answer}}}", gold) is same
    assert not string_match(f"So {answer}", gold)


def test_the_second_scorer_calls_nothing_right_that_the_table_calls_wrong():
    assert [case for case in CASES if string_match(case[0], case[1]) and case[2] != "right"] == []
    assert normal("100") == "100" and normal("0.10") == "0.1" and normal("-007.50") == "-7.5" and normal(".") == normal("")


def test_exact_grading_needs_no_process():
    grader = Grader("exact")
    assert grader.grade(["12", " 12\n", "120", "1", ""], ["12"] * 5) == ["right", "right", "wrong", "wrong", "wrong"] and grader.workers == []
    for name, message in (("exakt", "there are auto, exact, math"), ("none.py:score", "there is no file none.py")):
        with pytest.raises(UsageError, match=message):
            Grader(name)


def test_rewards_follow_verdicts(math_grader):
    rollouts = [Rollout(i, 0, [], [], [], True, text) for i, text in enumerate([r"\boxed{1}", r"\boxed{1}", "1"])]

    class Problem:
        def __init__(self, answer):
            self.answer = answer

    grade(math_grader, rollouts, [Problem("1"), Problem("2"), Problem("1")])
    assert [(r.verdict, r.reward) for r in rollouts] == [("right", 1.0), ("wrong", -1.0), ("no_answer", -1.0)]


# ---------- hostile answers ----------

@pytest.mark.slow
def test_no_hostile_answer_outlasts_the_deadline_or_breaks_the_grader():
    answers, deadline = hostile_answers(), 2.0
    assert len(answers) >= 200
    grader = Grader("math", workers=2, timeout=deadline)
    ordinary = [rf"\boxed{{\frac{{{i}}}{{7}}}}" for i in range(60)], [f"{i}/7" for i in range(60)]
    assert set(grader.grade(*ordinary)) == {"right"}
    started = [worker.process.pid for worker in grader.workers]
    verdicts = grader.grade([rf"\boxed{{{answer}}}" for answer in answers], ["42"] * len(answers))
    assert max(worker.slowest for worker in grader.workers) <= deadline + 1
    assert set(verdicts) <= set(VERDICTS) and "right" not in verdicts
    assert verdicts.count("timeout") > 5 and [worker.process.pid for worker in grader.workers] != started  # some were killed ...
    assert set(grader.grade(*ordinary)) == {"right"} and all(worker.process.poll() is None for worker in grader.workers)  # ... and nobody notices
    grader.close()


def test_the_next_answer_after_each_kind_of_death_is_right(own):
    """Endless, stopped, dead, out of memory."""
    grader = own("""
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
""", timeout=1.0)
    for kind in ("endless", "stopped", "dead", "recursive", "memory"):
        assert grader.grade([kind, "1"], ["1", "1"]) == ["timeout", "right"]
    assert grader.grade(["x" * 5_000_000, "\ud800\x00\n", "1"], ["1"] * 3) == ["wrong", "wrong", "right"]


def test_the_children_of_a_grader_go_with_it(own):
    """As of a grader that runs the response as a program."""
    grader = own("""
import os, time
def score(response, answer):
    if response == "endless" and os.fork() == 0:
        time.sleep(1000)
    if response == "endless":
        time.sleep(1000)
    return True
""", timeout=1.0)
    assert grader.grade(["endless", "1"], ["1", "1"]) == ["timeout", "right"]


def test_workers_end_with_their_parent_in_the_middle_of_an_answer(tmp_path):
    (tmp_path / "endless.py").write_text(f"def score(response, answer):\n    open({str(tmp_path / 'begun')!r}, 'w').close()\n    while True: pass\n")
    program = (f"import sys; sys.path.insert(0, {os.getcwd()!r})\nfrom reward import Grader\ng = Grader({str(tmp_path / 'endless.py') + ':score'!r}, 1, 4.0)\n"
               "print(g.workers[0].process.pid, flush=True)\ng.grade(['a'], ['b'])")
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while os.path.exists(f"/proc/{worker}") and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{worker}")


def test_signals_for_the_trainer_do_not_reach_the_workers_and_one_that_died_idle_costs_nothing(math_grader):
    """torchrun and Ctrl-C signal a whole process group."""
    assert all(os.getpgid(worker.process.pid) != os.getpgid(0) for worker in math_grader.workers)
    for worker in math_grader.workers:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    assert math_grader.grade([r"\boxed{1}"] * 8, ["1"] * 8) == ["right"] * 8


def test_closing_in_the_middle_of_a_grading_leaves_nothing_behind(own):
    grader = own("import time\ndef score(response, answer): time.sleep(1000)\n", workers=2, timeout=60.0)
    with ThreadPoolExecutor(1) as pool:
        grading = pool.submit(grader.grade, ["a"] * 20, ["b"] * 20)
        time.sleep(0.5)
        processes = [worker.process for worker in grader.workers]
        grader.close()
        with pytest.raises((RuntimeError, CancelledError)):
            raise grading.exception() or RuntimeError
    assert all(process.poll() is not None for process in processes) and grader not in reward.OPEN


# ---------- a user's own ----------

def test_a_function_from_a_file_grades_and_may_import_its_neighbours(own, tmp_path):
    (tmp_path / "neighbour.py").write_text("offset = 1\n")
    grader = own("import neighbour, numpy\ndef score(response, answer):\n    return numpy.bool_(int(response) == int(answer) + neighbour.offset) if response else None\n")
    assert grader.grade(["3", "2", ""], ["2"] * 3) == ["right", "wrong", "no_answer"]


@pytest.mark.parametrize("source, message", [
    ("import nothing_like_it", "does not start: ModuleNotFoundError"), ("scores = 1", "defines no function 'score'"), ("score = 1", "defines no function 'score'"), ("def score(:", "does not start: SyntaxError"),
    ("while True: pass", "took over 3 s to start"), ("import os; os._exit(1)", "the process died, or took"),
])
def test_a_grader_that_cannot_start_says_why(own, source, message, monkeypatch):
    monkeypatch.setattr(reward, "START", 3.0 if "while" in source else 60.0)
    with pytest.raises(UsageError, match=message):
        own(source).canary("42")


@pytest.mark.parametrize("body, message", [
    ("return float(response) == float(answer)", "failed on response '4%', answer '4': ValueError"), ("return 0.5", "returned 0.5; it must return True, False, or None"), ("return 'right'", "it must return True"),
])
def test_a_grader_that_fails_names_the_response(own, body, message):
    with pytest.raises(RuntimeError, match=message):
        own(f"def score(response, answer): {body}").grade(["4%"], ["4"])


def test_the_canary_sings_for_a_broken_grader(own):
    Grader("exact").canary("42")
    Grader("exact").canary("zebra")
    for broken in ("True", "False", "None", "response.startswith(answer[:1])", "response in answer"):
        with pytest.raises(UsageError, match="reward canary"):
            own(f"def score(response, answer): return {broken}").canary("42")


def test_a_grader_can_say_what_a_right_response_looks_like(own):
    source = "def score(response, answer): return response == f'[{answer}]'\n"
    with pytest.raises(UsageError, match="reward canary"):
        own(source).canary("42")
    for broken in ("1 / 0", "time.sleep(9)"):
        with pytest.raises(UsageError, match="its .example failed"):
            own("import time\n" + source + f"score.example = lambda answer: {broken}\n", timeout=1.0).canary("42")
    own(source + "score.example = lambda answer: f'[{answer}]'\n").canary("42")
