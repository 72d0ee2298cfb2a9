"""Rewards: a score in [0, 1] for each response.

A grader is a function (response text, reference answer) -> a number in [0, 1], True or False, or
None where the response holds no answer. `exact` compares whole texts. `math` compares answers by
mathematics (grader/); symbolic algebra can take forever on what a policy writes, so it runs in
worker processes that are killed at a deadline. So does reward=path.py:function, yours.
"""
import atexit
import hashlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from typing import NamedTuple

from configurator import UsageError
from grader.mathematics import math, warm_up

# right: solved; partial: a score above 0, but not solved; timeout: also crashed, or out of memory
VERDICTS = ("right", "partial", "wrong", "no_answer", "timeout")


def exact(response, answer):
    """Right when the whole response is the answer, surrounding white space aside."""
    return response.strip() == answer.strip()


GRADERS = {"exact": exact, "math": math}
MEMORY_GIB = 4  # of a worker that grades by mathematics
RESIDENT_MIB = 512  # a worker over it between two answers is replaced: caches keep heavy answers
START = 60.0  # seconds a worker may take to start


def function_of(name):
    """The grader called `name`: a key of GRADERS, or path.py:function."""
    if name in GRADERS:
        return GRADERS[name]
    import runpy

    path, _, function = name.rpartition(":")
    # The file may import its neighbours.
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    defined = runpy.run_path(path)
    if not callable(defined.get(function)):
        raise UsageError(f"reward={name}: {path} defines no function {function!r}")
    return defined[function]


def respond(grader, task):
    """Carry out one task, {"response": ..., "answer": ...}, or {"example": ..., "question": ...}
    for the canary.

    -> {"score": ...} or {"verdict": ...}, {"responses": ...} for the canary, or {"error": ...}."""
    try:
        if "example" in task:
            return {"responses": examples(grader, task["example"], task["question"])}
        score = grader(task["response"], task["answer"])
        if score is None:
            return {"verdict": "no_answer"}
        # By name: numpy's bool_ is no number, and numpy need not be imported for it.
        number = isinstance(score, Real) or type(score).__name__ in ("bool", "bool_")
        if number and 0 <= score <= 1:  # NaN is not
            return {"score": float(score)}
        return {"error": f"the grader returned {score!r}; it must return a number from 0 to 1, "
                         "True, False, or None where there is no answer"}
    except (MemoryError, RecursionError):
        return {"verdict": "timeout"}
    # The parent is told, and raises it.
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def examples(grader, answer, question):
    """A right response to a real answer, then some that are not: another word, nothing, and, where
    the grader says what a right response looks like, one that only repeats the question."""
    response_to = getattr(grader, "example", str)  # else the bare answer is a right response
    other = "zebra" if answer.strip() != "zebra" else "giraffe"
    responses = [response_to(answer), response_to(other), ""]
    if re.fullmatch(r"-?\d{1,15}", answer):
        responses.append(response_to(str(int(answer) + 1)))
    if hasattr(grader, "example") and question.strip() not in ("", answer.strip()):
        responses.append(response_to(question))
    return responses


# ---------- graders in processes of their own ----------

def work(name, deadline):
    """What a worker process does: one task after another, each a line of JSON, in its main thread,
    until its input ends."""
    # What a grader prints must not look like a verdict: verdicts keep the standard output as
    # `reply`, and whatever else is written to it goes to the standard error.
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        if name == "math":
            import logging
            import resource

            # An answer that needs more memory is given up before it takes the whole machine's.
            limit = MEMORY_GIB * 2**30
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            logging.disable(logging.WARNING)
            # Imports and builds its tables now, not under the first answer's clock.
            warm_up()
        grader = function_of(name)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=reply)
        return
    print(json.dumps({"ready": True}), file=reply)
    for line in sys.stdin:
        # In case the parent is gone: an alarm ends this process, even inside C code.
        signal.alarm(int(deadline) + 2)
        result = respond(grader, json.loads(line))
        signal.alarm(0)
        print(json.dumps(result), file=reply)


class Worker:
    """A grading process and the clock over it.

    One task at a time; a task that outlasts `deadline` seconds ends the process and all that it
    started, and the next one starts at once. The process is in a session of its own: Ctrl-C and
    torchrun's signals are for the trainer.
    """

    def __init__(self, name, deadline):
        self.name = name
        self.deadline = deadline
        self.slowest = 0.0  # seconds
        self.closed = False
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), self.name, str(self.deadline)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.ready = False

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it is dead, and so is what it started
            return

    def stop(self):
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:  # a request that the dead process never read
                continue

    def exchange(self, request, seconds):
        """Send `request` (bytes) and read a line; b"" if that took too long or the process died."""
        # Reading a pipe cannot be given a time limit, but it ends when the process is killed.
        expired = threading.Event()

        def expire():
            expired.set()
            self.kill()

        clock = threading.Timer(seconds, expire)
        clock.daemon = True
        clock.start()
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            # Once joined, the clock cannot kill the process over the next request.
            clock.cancel()
            clock.join()
        return line if line.endswith(b"\n") and not expired.is_set() else b""

    def ask(self, task):
        """The worker's answer to one task, or None when it was killed at the deadline or died.
        UsageError if it cannot start."""
        # Somebody may have ended the process while it was idle.
        if self.ready and self.process.poll() is not None:
            self.stop()
            self.start()
        # Starting takes seconds of imports, on a clock of its own.
        if not self.ready:
            line = self.exchange(b"", START)
            greeting = json.loads(line) if line else {
                "error": f"the process died, or took over {START:g} s to start"}
            if "error" in greeting:
                raise UsageError(
                    f"reward={self.name}: its worker does not start: {greeting['error']}")
            self.ready = True
        begin = time.monotonic()
        line = self.exchange(json.dumps(task).encode() + b"\n", self.deadline)
        self.slowest = max(self.slowest, time.monotonic() - begin)
        # A new process starts at once, to be ready for the next task.
        if not line or self.name == "math" and resident(self.process.pid) > RESIDENT_MIB:
            self.stop()
            if not self.closed:
                self.start()
        return json.loads(line) if line else None


def resident(pid):
    """MiB of memory that a process holds; 0 when it is gone, or where there is no /proc."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


def source_fingerprint(name):
    """16 hexadecimal digits that change with the file of a reward function path.py:function; "" for
    a built-in reward."""
    path = name.rpartition(":")[0]
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


class Grade(NamedTuple):
    verdict: str  # one of VERDICTS
    score: float  # in [0, 1]; 0 where there is no answer, or no time


class Grader:
    """Grades by `name`: `exact` (in this process), `math`, or path.py:function (each in `workers`
    processes of its own, with `timeout` seconds an answer). A score of `solved_at` is right."""

    def __init__(self, name, workers=2, timeout=5.0, solved_at=1.0):
        if name not in GRADERS:
            path = name.rpartition(":")[0]
            if not path.endswith(".py"):
                raise UsageError(
                    f"reward={name!r} is unknown; there are auto, {', '.join(GRADERS)}, "
                    "or a function of yours: path.py:function")
            if not os.path.isfile(path):
                raise UsageError(f"reward={name}: there is no file {path}")
        self.name = name
        self.solved_at = solved_at
        self.workers = []
        self.idle = queue.SimpleQueue()  # workers that have no task
        if name != "exact":
            self.workers = [Worker(name, timeout) for _ in range(workers)]
            self.threads = ThreadPoolExecutor(workers)
            OPEN.append(self)
            for worker in self.workers:
                self.idle.put(worker)

    def ask(self, task):
        if self.name == "exact":
            return respond(exact, task)
        worker = self.idle.get()
        try:
            return worker.ask(task)
        finally:
            self.idle.put(worker)

    def grade_one(self, response, answer):
        result = self.ask({"response": response, "answer": answer}) or {"verdict": "timeout"}
        if "error" in result:
            raise RuntimeError(f"reward={self.name!r} failed on response {response!r}, "
                               f"answer {answer!r}: {result['error']}")
        if "verdict" in result:
            return Grade(result["verdict"], 0.0)
        score = result["score"]
        if score >= self.solved_at:
            return Grade("right", score)
        return Grade("partial" if score > 0 else "wrong", score)

    def grade(self, responses, answers):
        """Responses and reference answers, both lists of N texts -> list of N Grades."""
        pairs = list(zip(responses, answers, strict=True))
        if self.name == "exact":
            return [self.grade_one(*pair) for pair in pairs]
        pending = [self.threads.submit(self.grade_one, *pair) for pair in pairs]
        try:
            return [future.result() for future in pending]
        finally:
            # After an error, answers that wait for a worker need not be graded.
            for future in pending:
                future.cancel()

    def canary(self, answer, question=""):
        """A right and some other responses to a real question must score so. UsageError if not:
        every reward would be worthless."""
        made = self.ask({"example": answer, "question": question})
        made = made or {"error": "it took too long"}
        if "error" in made:
            raise UsageError(
                f"reward={self.name}: its .example failed on answer {answer!r}: {made['error']}")
        responses = made["responses"]
        verdicts = [g.verdict for g in self.grade(responses, [answer] * len(responses))]
        if verdicts[0] != "right" or "right" in verdicts[1:]:
            raise UsageError(
                f"reward canary: {', '.join(map(repr, responses))} scored {', '.join(verdicts)} "
                f"against {answer!r} by reward={self.name!r}, and only the first is right; mend "
                "the grader (give it an .example if the bare answer is not a right response) "
                "or the data set's answers")

    def close(self):
        """Ends all workers, also in the middle of an answer."""
        if self.workers:
            self.threads.shutdown(wait=False, cancel_futures=True)
            # A thread may be waiting for a worker: it must not start another process for it.
            for worker in self.workers:
                worker.closed = True
                worker.kill()
            self.threads.shutdown()
            for worker in self.workers:
                worker.stop()
            OPEN.remove(self)
        self.workers = []


OPEN = []  # graders with processes


@atexit.register
def close_graders():
    """End every grading process."""
    # A copy of the list, because close() removes from it.
    for grader in OPEN[:]:
        grader.close()


def grade(grader, rollouts, problems):
    """Sets `verdict` and `score` of each rollout."""
    grades = grader.grade(
        [rollout.text for rollout in rollouts],
        [problems[rollout.prompt_id].answer for rollout in rollouts])
    for rollout, (verdict, score) in zip(rollouts, grades, strict=True):
        rollout.verdict = verdict
        rollout.score = score


if __name__ == "__main__":
    work(sys.argv[1], float(sys.argv[2]))
