"""Rewards: +1 for a right response, -1 for any other. A grader is a function (response text, reference answer) -> True, False, or
None where the response holds no answer.

`exact` compares whole texts. `math` compares answers by mathematics (answers.py); symbolic algebra can take forever on what a policy writes, so
it runs in worker processes that are killed at a deadline. So does a function of yours: reward=path.py:function.
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

from answers import equivalent, math
from configurator import UsageError

RIGHT, WRONG = 1.0, -1.0  # rewards
VERDICTS = ("right", "wrong", "no_answer", "timeout")  # timeout: also crashed, or out of memory


def exact(response, answer):
    """Right when the whole response is the answer, surrounding white space aside."""
    return response.strip() == answer.strip()


GRADERS = {"exact": exact, "math": math}
MEMORY_GIB = 4  # of a worker that grades by mathematics
START = 60.0  # seconds a worker may take to start


def function_of(name):
    """The grader called `name`: a key of GRADERS, or path.py:function."""
    if name in GRADERS:
        return GRADERS[name]
    import runpy

    path, _, function = name.rpartition(":")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    defined = runpy.run_path(path)
    if not callable(defined.get(function)):
        raise UsageError(f"reward={name}: {path} defines no function {function!r}")
    return defined[function]


def respond(grader, task):
    """What one task comes to: {"verdict": ...} of a response, or {"responses": ...} for the canary, or {"error": ...}."""
    try:
        if "example" in task:
            return {"responses": examples(grader, task["example"])}
        result = grader(task["response"], task["answer"])
        if result is None:
            return {"verdict": "no_answer"}
        if type(result).__name__ in ("bool", "bool_"):
            return {"verdict": "right" if result else "wrong"}
        return {"error": f"the grader returned {result!r}; it must return True, False, or None where there is no answer"}
    except (MemoryError, RecursionError):
        return {"verdict": "timeout"}
    except Exception as error:  # told to the parent, which raises it
        return {"error": f"{type(error).__name__}: {error}"}


def examples(grader, answer):
    """A right response to a real answer, then some that are not."""
    make = getattr(grader, "example", lambda answer: answer)
    return [make(answer), make("zebra" if answer.strip() != "zebra" else "giraffe"), ""] + ([make(str(int(answer) + 1))] if re.fullmatch(r"-?\d{1,15}", answer) else [])


# ---------- graders in processes of their own ----------

def work(name, deadline):
    """What a worker process does: one task, a line of JSON, after another, in its main thread, until its input ends."""
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a grader prints must not look like a verdict
    try:
        if name == "math":
            import logging
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_GIB * 2**30,) * 2)
            logging.disable(logging.WARNING)
            equivalent("1", "2")  # imports and builds its tables now, not under the first answer's clock
        grader = function_of(name)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=reply)
        return
    print(json.dumps({"ready": True}), file=reply)
    for line in sys.stdin:
        signal.alarm(int(deadline) + 2)  # in case the parent is gone: the default action ends this process, even inside C code
        answer = respond(grader, json.loads(line))
        signal.alarm(0)
        print(json.dumps(answer), file=reply)


class Worker:
    """A grading process and the clock over it. One task at a time; a task that outlasts `deadline` seconds ends the process and all that it
    started, and the next one starts at once. It is in a session of its own: Ctrl-C and torchrun's signals are for the trainer."""

    def __init__(self, name, deadline):
        self.name, self.deadline, self.slowest, self.closed = name, deadline, 0.0, False
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), self.name, str(self.deadline)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        start_new_session=True)
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
        """Send `request` (bytes) and read a line, or b"" when that took too long or the process died."""
        expired = threading.Event()
        clock = threading.Timer(seconds, lambda: (expired.set(), self.kill()))
        clock.daemon = True
        clock.start()
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            clock.cancel()
            clock.join()
        return line if line.endswith(b"\n") and not expired.is_set() else b""

    def ask(self, task):
        """The worker's answer to one task, or None when it was killed at the deadline or died. UsageError if it cannot start."""
        if self.ready and self.process.poll() is not None:  # somebody ended it while it was idle
            self.stop()
            self.start()
        if not self.ready:
            line = self.exchange(b"", START)
            hello = json.loads(line) if line else {"error": f"the process died, or took over {START:g} s to start"}
            if "error" in hello:
                raise UsageError(f"reward={self.name}: its worker does not start: {hello['error']}")
            self.ready = True
        begin = time.monotonic()
        line = self.exchange(json.dumps(task).encode() + b"\n", self.deadline)
        self.slowest = max(self.slowest, time.monotonic() - begin)
        if line:
            return json.loads(line)
        self.stop()
        if not self.closed:
            self.start()
        return None


def source_fingerprint(name):
    """16 hexadecimal digits that change with the file of a reward function path.py:function; "" for a built-in reward."""
    path = name.rpartition(":")[0]
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


class Grader:
    """Grades by `name`: `exact` (in this process), `math`, or path.py:function (each in `workers` processes of its own, with `timeout`
    seconds an answer)."""

    def __init__(self, name, workers=2, timeout=5.0):
        path = name.rpartition(":")[0]
        if name not in GRADERS and not path.endswith(".py"):
            raise UsageError(f"reward={name!r} is unknown; there are auto, {', '.join(GRADERS)}, or a function of yours: path.py:function")
        if name not in GRADERS and not os.path.isfile(path):
            raise UsageError(f"reward={name}: there is no file {path}")
        self.name, self.workers, self.idle = name, [], queue.SimpleQueue()
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

    def verdict(self, response, answer):
        got = self.ask({"response": response, "answer": answer}) or {"verdict": "timeout"}
        if "error" in got:
            raise RuntimeError(f"reward={self.name!r} failed on response {response!r}, answer {answer!r}: {got['error']}")
        return got["verdict"]

    def grade(self, responses, answers):
        """Responses and reference answers, both lists of N texts -> list of N of VERDICTS."""
        pairs = list(zip(responses, answers, strict=True))
        if self.name == "exact":
            return [self.verdict(*pair) for pair in pairs]
        pending = [self.threads.submit(self.verdict, *pair) for pair in pairs]
        try:
            return [one.result() for one in pending]
        finally:
            for one in pending:  # after an error, what has not begun need not
                one.cancel()

    def canary(self, answer):
        """A right and some other responses to a real answer must score so. UsageError if not: every reward would be worthless."""
        made = self.ask({"example": answer}) or {"error": "it took too long"}
        if "error" in made:
            raise UsageError(f"reward={self.name}: its .example failed on answer {answer!r}: {made['error']}")
        responses = made["responses"]
        got = self.grade(responses, [answer] * len(responses))
        if got[0] != "right" or "right" in got[1:]:
            raise UsageError(f"reward canary: {', '.join(map(repr, responses))} scored {', '.join(got)} against {answer!r} by reward={self.name!r}, and only the first is right; "
                             "mend the grader (give it an .example if the bare answer is not a right response) or the data set's answers")

    def close(self):
        if self.workers:
            self.threads.shutdown(wait=False, cancel_futures=True)
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
    for grader in OPEN[:]:
        grader.close()


def grade(grader, rollouts, problems):
    """Sets `verdict` and `reward` of each rollout."""
    verdicts = grader.grade([r.text for r in rollouts], [problems[r.prompt_id].answer for r in rollouts])
    for rollout, verdict in zip(rollouts, verdicts, strict=True):
        rollout.verdict, rollout.reward = verdict, RIGHT if verdict == "right" else WRONG


if __name__ == "__main__":
    work(sys.argv[1], float(sys.argv[2]))
