"""What a run writes down and how it ends: JSON lines, tracker, clock, memory, the orderly stop."""
import dataclasses
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import torch
from tqdm import tqdm

from configurator import UsageError

SECRET = re.compile(r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30,}|sk-[\w-]{32,})|(?<=://)\S+(?=@)")  # tokens, and user:password of an address


def without_secrets(cfg):
    """All knobs as a dict to write down, without the secrets that somebody put into one."""
    return {key: SECRET.sub("***", value) if isinstance(value, str) else value for key, value in dataclasses.asdict(cfg).items()}


def jsonable(value):
    """Floats and lists of floats as JSON knows them: NaN becomes null."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [jsonable(v) for v in value]
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    return (float(value) if np.isfinite(value) else None) if isinstance(value, (float, np.floating)) else value


def read_json(path):
    with open(path) as file:
        return json.load(file)


def versions():
    import transformers

    here = os.path.dirname(os.path.abspath(__file__))
    git = shutil.which("git") and subprocess.run(["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True).stdout.strip()
    return {"git": git or "unknown", "python": platform.python_version(), "torch": torch.__version__,
            "transformers": transformers.__version__, "numpy": np.__version__}


class Tracker:
    """wandb or tensorboard, or nothing. metrics.jsonl has everything in any case."""

    def __init__(self, cfg, group):
        self.start, self.log = lambda: None, lambda step, metrics: None
        if not group.master:
            return
        try:
            if cfg.logger == "wandb":
                import wandb
            elif cfg.logger == "tensorboard":
                from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(f"logger={cfg.logger} is not installed: pip install {cfg.logger}, or --logger=none") from error
        if cfg.logger == "wandb":
            self.start = lambda: wandb.init(project="nanogdro", name=os.path.basename(cfg.out_dir), config=without_secrets(cfg), dir=cfg.out_dir)
            self.log = lambda step, metrics: wandb.log(metrics, step=step)
        elif cfg.logger == "tensorboard":
            self.start = lambda: setattr(self, "writer", SummaryWriter(cfg.out_dir))
            self.log = lambda step, metrics: [self.writer.add_scalar(name, value, step) for name, value in metrics.items()]


class Clock:
    """Seconds since the last lap, by name."""

    def __init__(self):
        self.laps, self.times = [], [time.perf_counter()]

    def lap(self, name):
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # or the time would be that of the launches
        self.laps.append(name)
        self.times.append(time.perf_counter())

    def seconds(self):
        return {f"time/{name}": t for name, t in zip(self.laps, np.diff(self.times))} | {"time/step": self.times[-1] - self.times[0]}


def used_mib(group, phase):
    """GPU memory in use at the end of a phase, before anything is given back, as the driver counts it: PyTorch keeps what it once
    allocated, so this is the phase's peak. PyTorch's own figures count a sleeping vLLM as if it were awake. Nothing on a CPU."""
    if group.device != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info()
    return {f"mem/{phase}_mib": (total - free) / 2**20}


def peak_mib(memory):
    """The step's peak: of its phases (`used_mib`) on a GPU, the process's so far on a CPU."""
    return max(memory.values(), default=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


class Stop:
    """Ctrl-C or SIGTERM asks for a stop after the step, with a checkpoint; a second Ctrl-C stops at once."""

    asked, status = False, 128 + signal.SIGINT  # status: what the process exits with

    def listen(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.ask)

    def ask(self, number, frame):
        self.asked, self.status = True, 128 + number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tqdm.write("stopping after this step (Ctrl-C again: at once)")

    def restore(self):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
