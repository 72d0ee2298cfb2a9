"""Rewards: +1 for a right response, -1 for any other. A grader is a function (response text, reference answer) -> True, False, or
None where the response holds no answer.

`exact` compares whole texts. `math` compares the content of the last \\boxed{} by mathematics; symbolic algebra can take forever on what a
policy writes, so it runs in worker processes that are killed at a deadline. So does a function of yours: reward=path.py:function.
"""
import atexit
import functools
import itertools
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from configurator import UsageError

RIGHT, WRONG = 1.0, -1.0  # rewards
VERDICTS = ("right", "wrong", "no_answer", "timeout")  # timeout: also crashed, or out of memory


def exact(response, answer):
    """Right when the whole response is the answer, surrounding white space aside."""
    return response.strip() == answer.strip()


# ---------- the answer in a response ----------

LONGEST = 300  # characters; a longer answer is wrong unread
ANSWER_LINE = re.compile(r"\banswer[*_ ]{0,4}[:：][*_ ]{0,4}([^\n]*\S[^\n]*)", re.IGNORECASE)


def extract(response):
    """The answer in a response: inside its last \\boxed{}, or else after its last "Answer:" -> text, or None. A last box that is empty or
    never closes (the response was cut) holds no answer: what an earlier one says was not the last word."""
    start = max(response.rfind("\\boxed"), response.rfind("\\fbox"))
    if start < 0:
        lines = ANSWER_LINE.findall(response)
        return lines[-1].strip() if lines else None
    box = re.compile(r"\\(?:boxed|fbox)\s*").match(response, start).end()
    if response[box : box + 1] != "{":  # \boxed 5
        bare = re.compile(r"[^\s$]{1,%d}" % LONGEST).match(response, box)
        return bare and bare[0]
    depth = 0
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(response, box, box + 4 * LONGEST):  # an escaped brace is no brace
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return response[box + 1 : brace.start()].strip() or None
    return response[box + 1 :] if len(response) > box + 4 * LONGEST else None


FRACTIONS = dict(zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "12 13 23 14 34 15 25 35 45 16 56 18 38 58 78".split()))
SYMBOLS = {ord(c): rf"\frac{{{d[0]}}}{{{d[1]}}}" for c, d in FRACTIONS.items()} | {ord(c): f"^{d}" for c, d in zip("⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ", "0123456789n")}
SYMBOLS |= {ord(c): f" {latex} " for c, latex in {"π": r"\pi", "∞": r"\infty", "≤": r"\le", "≥": r"\ge", "≠": r"\ne", "×": r"\times", "·": r"\cdot", "∪": r"\cup",
                                                    "∩": r"\cap", "∅": r"\emptyset", "±": r"\pm", "°": r"^\circ", "º": r"^\circ", "θ": r"\theta"}.items()}
SYMBOLS |= {ord(c): "-" for c in "−–—‐‑‒"}
SPACE = re.compile(r"(?<!\\)\\[,;:! ]|\\q?quad\b|~|\\(?:displaystyle|left|right|[bB]igg?[lr]?)(?![a-zA-Z])")
SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d*)?)[eE]([-+]?\d+)")
WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))


def clean(answer):
    """An answer as LaTeX: Unicode mathematics written out, no dollars, no spacing commands, no full stop."""
    answer = unicodedata.normalize("NFKC", answer.translate(SYMBOLS)).replace("\N{FRACTION SLASH}", "/").strip()
    answer = re.sub(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[a-zA-Z]))", lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}", answer)
    unwrapped = None
    while answer != unwrapped:
        unwrapped = answer
        for left, right in WRAPPERS:
            if len(answer) > len(left + right) and answer.startswith(left) and answer.endswith(right) and left not in answer[len(left) : -len(right)]:
                answer = answer[len(left) : -len(right)]
        answer = answer.strip()
        if answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1].strip()
    answer = re.sub(r"(?<!\\)\$", "", answer)
    answer = SPACE.sub(lambda m: "" if m[0] in (r"\,", r"\!") else " ", answer.replace("{,}", ","))
    return SCIENTIFIC.sub(r"\1 \\times 10^{\2}", answer) if SCIENTIFIC.fullmatch(answer) else answer.strip()


# ---------- right by mathematics ----------

TOWER = re.compile(r"\^\s*[({]?\s*[^(){}^]*\d\s*\^\s*[({]?\s*\d|\^\s*[({]?\s*-?\d{5}")  # 9^9^9, 2^{10^{10}}, 10^{100000}
DEEPEST = 20  # brackets inside brackets: parsers backtrack
TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
INTEGER = re.compile(r"[-+]?[0-9]+")
CHOICE = re.compile(r"\(?([A-J])\)?")
CHOSEN = re.compile(r"\(?([A-Ja-j])\)?\.?|\(?([A-J])(?:\)|[.:,])\s.*|\(([A-J])\).*", re.DOTALL)


def letter(answer):
    """The letter that a multiple-choice answer names, B of "B", "(b)", "\\text{B}" or "B. 12 cm" -> capital, or None."""
    chosen = CHOSEN.fullmatch(TEXT.sub(r"\1", answer).strip())
    return chosen and next(filter(None, chosen.groups())).upper()


def depth(answer):
    return max(itertools.accumulate({"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(c, 0) for c in answer), default=0)


def math(response, answer):
    """Right when the response's answer equals the reference mathematically (math-verify), or is the same text, or, where the reference is a
    capital letter A to J, names that choice. Answers that are over-long, deeply nested or towers of powers are wrong unread."""
    found = extract(response)
    if found is None:
        return None
    if len(found) > LONGEST:
        return found == answer.strip()
    gold, found = clean(answer), clean(found)
    if found == gold:
        return True
    if INTEGER.fullmatch(gold) and INTEGER.fullmatch(found):  # most training sets have nothing else
        return int(gold) == int(found)
    if TOWER.search(found) or depth(found) > DEEPEST:
        return False
    if choice := CHOICE.fullmatch(TEXT.sub(r"\1", gold).strip()):
        return letter(found) == choice[1]
    return equivalent(gold, found)


def equivalent(gold, found):
    from math_verify import verify

    return verify(parsed(gold), parsed(found), timeout_seconds=None)  # gold first: the order matters


@functools.lru_cache(4096)
def parsed(latex):
    from math_verify import LatexExtractionConfig, parse

    return parse(f"${latex}$", [LatexExtractionConfig()], parsing_timeout=None)  # plain expressions are LaTeX too; the other config would fish a number out of anything


math.example = lambda answer: f"\\boxed{{{answer}}}"


# ---------- right by text, the second scorer ----------

def normal(answer):
    """An answer as a text that is equal for the usual ways to write it: what papers compare that do not use computer algebra."""
    text = clean(answer).replace("dfrac", "frac").replace("tfrac", "frac")
    text = re.sub(r"\\text\s*\{\s*(?:and|or)\s*\}", ",", text)
    if words := TEXT.fullmatch(text):
        text = words[1]
    if re.fullmatch(r"[A-Za-z ]{2,}", text):
        text = text.lower()
    text = re.sub(r"\s*\\(?:text|mathrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?$", "", text)  # a unit at the end
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\?[%$]|^\s*[a-zA-Z]\s*(?:=|\\in)|(?<!\d)\s+|\s+(?!\d)", "", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text)
    text = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    if number := re.fullmatch(r"(-?)0*(\d*)(?:\.(\d*?)0*)?", text):  # 025, 27.0, .5
        sign, whole, decimals = number.groups(default="")
        text = sign + (whole or "0") + (decimals and "." + decimals) if text.strip("-.") else text
    return text


def string_match(response, answer):
    """Right when the response's answer is the reference as a normalised text, or names its letter -> bool."""
    found = extract(response)
    if found is None or len(found) > LONGEST:
        return False
    return normal(found) == normal(answer) or bool(CHOICE.fullmatch(normal(answer))) and letter(clean(found)) == normal(answer).strip("()")


# ---------- graders in processes of their own ----------

GRADERS = {"exact": exact, "math": math}
MEMORY_GIB = 4  # of a worker that grades by mathematics


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


def work(name, deadline):
    """What a worker process does: grade one line of JSON after another, in its main thread, until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it lets the step finish
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
        task = json.loads(line)
        signal.alarm(int(deadline) + 10)  # in case the parent is gone: the default action ends this process, even inside C code
        if "example" in task:
            answer = {"responses": examples(grader, task["example"])}
        else:
            try:
                answer = {"verdict": verdict_of(grader(task["response"], task["answer"]))}
            except (MemoryError, RecursionError):
                answer = {"verdict": "timeout"}
            except Exception as error:  # told to the parent, which raises it
                answer = {"error": f"{type(error).__name__}: {error}"}
        signal.alarm(0)
        print(json.dumps(answer), file=reply)


def verdict_of(result):
    if result is None:
        return "no_answer"
    if result in (True, False) and type(result).__name__ in ("bool", "bool_"):
        return "right" if result else "wrong"
    raise TypeError(f"the grader returned {result!r}; it must return True, False, or None where there is no answer")


def examples(grader, answer):
    """A right response to a real answer, then some that are not."""
    make = getattr(grader, "example", lambda answer: answer)
    return [make(answer), make("zebra"), ""] + ([make(str(int(answer) + 1))] if re.fullmatch(r"-?\d{1,15}", answer) else [])


class Worker:
    """A grading process and the clock over it. One grading at a time; a grading that outlasts `deadline` seconds ends the process, and the
    next one starts at once."""

    def __init__(self, name, deadline):
        self.name, self.deadline, self.slowest = name, deadline, 0.0
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), self.name, str(self.deadline)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ready = False

    def stop(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:  # a request the dead process never read
                continue

    def ask(self, task):
        """The worker's answer to one task, or None when it was killed at the deadline or died. UsageError if it cannot start."""
        if not self.ready:  # outside the clock
            line = self.process.stdout.readline()
            hello = json.loads(line) if line else {"error": "the process died while starting"}
            if "error" in hello:
                raise UsageError(f"reward={self.name}: its worker does not start: {hello['error']}")
            self.ready = True
        expired = threading.Event()
        clock = threading.Timer(self.deadline, lambda: (expired.set(), self.process.kill()))
        clock.daemon = True
        begin = time.monotonic()
        clock.start()
        try:
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            clock.cancel()
            clock.join()
        self.slowest = max(self.slowest, time.monotonic() - begin)
        if line.endswith(b"\n") and not expired.is_set():
            return json.loads(line)
        self.stop()
        self.start()
        return None


class Grader:
    """Grades by `name`: `exact` (in this process), `math`, or path.py:function (each in `workers` processes of its own, with `timeout`
    seconds an answer)."""

    def __init__(self, name, workers=2, timeout=5.0):
        path = name.rpartition(":")[0]
        if name not in GRADERS and not path.endswith(".py"):
            raise UsageError(f"reward={name!r} is unknown; there are auto, {', '.join(GRADERS)}, or a function of yours: path.py:function")
        if name not in GRADERS and not os.path.isfile(path):
            raise UsageError(f"reward={name}: there is no file {path}")
        self.name, self.workers = name, []
        if name != "exact":
            self.workers = [Worker(name, timeout) for _ in range(workers)]
            OPEN.append(self)
            self.threads, self.idle = ThreadPoolExecutor(workers), queue.SimpleQueue()
            for worker in self.workers:
                self.idle.put(worker)

    def ask(self, task):
        worker = self.idle.get()
        try:
            return worker.ask(task)
        finally:
            self.idle.put(worker)

    def verdict(self, response, answer):
        if self.name == "exact":
            return verdict_of(exact(response, answer))
        got = self.ask({"response": response, "answer": answer}) or {"verdict": "timeout"}
        if "error" in got:
            raise RuntimeError(f"reward={self.name!r} failed on response {response!r}, answer {answer!r}: {got['error']}")
        return got["verdict"]

    def grade(self, responses, answers):
        """Responses and reference answers, both lists of N texts -> list of N of VERDICTS."""
        if self.name == "exact":
            return [self.verdict(*pair) for pair in zip(responses, answers, strict=True)]
        pending = [self.threads.submit(self.verdict, *pair) for pair in zip(responses, answers, strict=True)]
        try:
            return [one.result() for one in pending]
        finally:
            for one in pending:  # after an error, what has not begun need not
                one.cancel()

    def canary(self, answer):
        """A right and some other responses to a real answer must score so. UsageError if not: every reward would be worthless."""
        responses = self.ask({"example": answer})["responses"] if self.name != "exact" else examples(exact, answer)
        got = self.grade(responses, [answer] * len(responses))
        if got[0] != "right" or "right" in got[1:]:
            raise UsageError(f"reward canary: {', '.join(map(repr, responses))} scored {', '.join(got)} against {answer!r} by reward={self.name!r}, and only the first is right; "
                             "mend the grader (give it an .example if the bare answer is not a right response) or the data set's answers")

    def close(self):
        for worker in self.workers:
            worker.stop()
        if self.workers:
            self.threads.shutdown()
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
