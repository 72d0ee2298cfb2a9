"""What a run writes down and how it ends: JSON lines, tracker, clock, memory, the orderly stop."""
import dataclasses
import importlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import torch
from tqdm import tqdm

from configurator import UsageError

# tokens, and user:password of an address
SECRET = re.compile(r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|sk-[\w-]{32,})|(?<=://)\S+(?=@)")


def without_secrets(cfg):
    """All knobs as a dict to write down, without the secrets that somebody put into one."""
    knobs = dataclasses.asdict(cfg)
    for name, value in knobs.items():
        if isinstance(value, str):
            knobs[name] = SECRET.sub("***", value)
    return knobs


def versions():
    """What a run was made with: the commit of this program, and the libraries that decide about
    its numbers."""
    import transformers

    commit = ""
    if shutil.which("git"):
        program = os.path.dirname(os.path.abspath(__file__))
        command = ["git", "-C", program, "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return {
        "git": commit or "unknown",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }


# ---------- files ----------


def read_json(path):
    with open(path) as file:
        return json.load(file)


def write_through(path, mode, text):
    """Write or append; when this returns, the text outlives a power cut."""
    with open(path, mode) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path, text):
    """Write a small file; a reader sees the old one or the new one, never a part."""
    write_through(f"{path}.tmp", "w", text)
    os.replace(f"{path}.tmp", path)


def jsonable(value):
    """Values and lists of values as JSON knows them. NaN and infinity become null."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


class RunLog:
    """The JSONL files of a run. The master writes them, all ranks may read."""

    def __init__(self, folder, group):
        self.dir = folder
        self.group = group

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def append(self, name, record):
        self.extend(name, [record])

    def extend(self, name, records):
        if not self.group.master:
            return
        values = [{key: jsonable(value) for key, value in record.items()} for record in records]
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in values]
        write_through(self.path(name), "a", "".join(lines))

    def read(self, name):
        """Records of a file. A last line that a kill tore is left out."""
        path = self.path(name)
        if not os.path.exists(path):
            return []
        with open(path) as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    def cut(self, name, end):
        """Keep only the lines of steps before `end`."""
        lines = [json.dumps(record) + "\n" for record in self.read(name) if record["step"] < end]
        replace_file(self.path(name), "".join(lines))


# ---------- trackers ----------

# of the table of rollouts, in this order; they are in the records of samples.jsonl
SAMPLE_COLUMNS = ["prompt", "response", "answer", "score", "advantage", "bin", "weight",
                  "rollouts"]


class Tracker:
    """Sends metrics to the service that cfg.logger names, if any. metrics.jsonl has all of them in
    any case. `with Tracker(cfg, group) as tracker:` ends the tracked run, so that all arrives."""

    def __init__(self, cfg, group):
        self.service = None
        # now, because a package that is missing should be noticed before the run folder is made
        group.on_master(self.choose, cfg)

    def choose(self, cfg):
        if cfg.logger == "none":
            return
        try:
            self.service = SERVICES[cfg.logger](cfg)
        except ImportError as error:
            raise UsageError(f"logger={cfg.logger} is not installed: pip install {cfg.logger}, "
                             "or --logger=none") from error

    def start(self):
        """To be called when the run folder is there: services write into it."""
        if self.service:
            self.service.start()

    def log(self, step, metrics):
        if self.service:
            self.service.log(step, metrics)

    def table(self, step, records):
        """Rollouts to read. TensorBoard has no tables: samples.jsonl has the same."""
        if self.service:
            rows = [[jsonable(record[name]) for name in SAMPLE_COLUMNS] for record in records]
            self.service.table(step, rows)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.service:
            self.service.finish(failed=kind is not None)


def tracked_id(out_dir):
    """What a tracker knows the run in `out_dir` by. It lies in the folder, so that a resumed run
    goes on there, and a new one in a folder of the same name does not."""
    path = os.path.join(out_dir, "tracked_id")
    if not os.path.exists(path):
        replace_file(path, uuid.uuid4().hex[:8])
    with open(path) as file:
        return file.read()


class Wandb:
    def __init__(self, cfg):
        self.package = importlib.import_module(cfg.logger)
        self.folder = cfg.out_dir
        self.knobs = without_secrets(cfg)
        self.started = False

    def start(self):
        name = os.path.basename(os.path.normpath(self.knobs["out_dir"]))
        self.open(name, tracked_id(self.folder))
        self.started = True

    def open(self, name, identity):
        typed = sys.argv
        sys.argv = [SECRET.sub("***", word) for word in typed]  # wandb sends the command line too
        try:
            self.package.init(project="nanogdro", name=name, id=identity, resume="allow",
                              config=self.knobs, dir=self.folder)
        finally:
            sys.argv = typed

    def log(self, step, metrics):
        self.package.log(metrics, step=step)

    def table(self, step, rows):
        samples = self.package.Table(columns=SAMPLE_COLUMNS, data=rows)
        self.package.log({"samples": samples}, step=step)

    def finish(self, failed):
        if self.started:
            self.package.finish(exit_code=int(failed))


class Trackio(Wandb):
    """Trackio has wandb's calls. It finds a run by its name, and keeps all in its own folder,
    TRACKIO_DIR."""

    def open(self, name, identity):
        self.package.init(project="nanogdro", name=f"{name}-{identity}", resume="allow",
                          config=self.knobs)

    def finish(self, failed):
        if self.started:
            self.package.finish()


class TensorBoard:
    def __init__(self, cfg):
        from torch.utils.tensorboard import SummaryWriter

        self.open_writer = SummaryWriter
        self.folder = cfg.out_dir
        self.writer = None

    def start(self):
        self.writer = self.open_writer(self.folder)

    def log(self, step, metrics):
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def table(self, step, rows):
        """There are none."""

    def finish(self, failed):
        if self.writer:
            self.writer.close()


SERVICES = {"wandb": Wandb, "trackio": Trackio, "tensorboard": TensorBoard}
LOGGERS = ("none", *SERVICES)

# ---------- time and memory ----------


class Clock:
    """Seconds of a step's phases, by name."""

    def __init__(self):
        self.begun = time.perf_counter()
        self.last = self.begun
        self.phases = {}

    def lap(self, name):
        """The phase `name` ends now; it began when the one before ended."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # or the time would be that of the launches
        now = time.perf_counter()
        self.phases[f"time/{name}"] = now - self.last
        self.last = now

    def seconds(self):
        return self.phases | {"time/step": self.last - self.begun}


def used_mib(group, phase):
    """GPU memory in use at the end of a phase, before anything is given back, as the driver counts
    it: PyTorch keeps what it once allocated, so this is the phase's peak. PyTorch's own figures
    count a sleeping vLLM as if it were awake. Nothing on a CPU."""
    if group.device != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info()
    return {f"mem/{phase}_mib": (total - free) / 2**20}


def peak_mib(memory):
    """The step's peak: of its phases (`used_mib`) on a GPU, the process's so far on a CPU."""
    if memory:
        return max(memory.values())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# ---------- the orderly stop ----------


class Stop:
    """Ctrl-C or SIGTERM asks for a stop after the step, with a checkpoint. A second Ctrl-C stops
    at once."""

    asked = False
    status = 128 + signal.SIGINT  # what the process exits with

    def listen(self):
        signal.signal(signal.SIGINT, self.ask)
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, number, frame):
        self.asked = True
        self.status = 128 + number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tqdm.write("stopping after this step (Ctrl-C again: at once)")

    def restore(self):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
