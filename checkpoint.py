"""How a run starts, and its checkpoints: written beside, verified, renamed, chosen on resume."""
import dataclasses
import itertools
import json
import os
import re
import shutil
import zlib

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from configurator import UsageError
from runlog import jsonable, read_json, versions, without_secrets

FILE_BYTES = 2**32  # of all ranks' shards together, in one set of files


def checkpoint_state(policy, optimizer):
    """(state dicts of the policy and of the optimizer, or None; the tensors of both by the name that they have in a checkpoint). A tied weight comes once."""
    if optimizer and not optimizer.state:
        optimizer.zero_grad()  # PyTorch fills in the moments of an optimizer that has not stepped, but not amid gradients
    weights, moments = get_state_dict(policy, optimizer) if optimizer else (get_model_state_dict(policy), None)
    names = {name.replace("_checkpoint_wrapped_module.", "") for name, _ in policy.named_parameters()}
    assert names <= weights.keys(), f"weights without a name in the state dict: {sorted(names - weights.keys())[:3]}"
    tensors = {f"policy.{name}": tensor for name, tensor in weights.items() if name in names}
    if optimizer:
        tensors |= {f"optimizer.{name}.{key}": tensor for name, state in moments["state"].items() for key, tensor in state.items()}
    return weights, moments, tensors


def save_weights(policy, optimizer, path):
    """Write policy and optimizer into `path`/weights as safetensors, sharded where they are sharded."""
    *_, tensors = checkpoint_state(policy, optimizer)
    before = itertools.accumulate((tensor.numel() * tensor.element_size() for tensor in tensors.values()), initial=0)
    files = {name: 1 + size // FILE_BYTES for name, size in zip(tensors, before)}  # a file is held in memory while it is written
    dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(os.path.join(path, "weights"), files, save_distributed=True))


def load_weights(policy, optimizer, path):
    """Read into policy and optimizer (None: only the policy), in place, what `save_weights` wrote."""
    weights, moments, tensors = checkpoint_state(policy, optimizer)
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(os.path.join(path, "weights")))
    if optimizer:
        moments["state"] = {name: {key: tensors[f"optimizer.{name}.{key}"] for key in state} for name, state in moments["state"].items()}
        set_state_dict(policy, optimizer, model_state_dict=weights, optim_state_dict=moments)
    else:
        set_model_state_dict(policy, weights)


# knobs that may differ on resume: they change no line that a step writes, or only its last digits
FREE_ON_RESUME = {"out_dir", "resume", "steps", "eval_every", "save_every", "keep_checkpoints", "grade_workers", "logger", "collective_timeout"}
ROUNDING = {"device", "cpu_threads", "kv_cache_gib", "eager", "max_num_seqs", "activation_checkpointing", "tokens_per_micro_batch"}


def differences(cfg, before):
    """(knob, value in the config.json `before`, value now) where they differ. A knob that is newer than the file had its default."""
    now, defaults = without_secrets(cfg), {f.name: f.default for f in dataclasses.fields(cfg)}
    return [(k, before["config"].get(k, defaults[k]), v) for k, v in now.items() if before["config"].get(k, defaults[k]) != v]


class RunFolder:
    """The files of one run. JSONL lines are flushed as they are written; checkpoints are written beside and renamed."""

    def __init__(self, cfg, group, data):
        self.dir, self.group = cfg.out_dir, group
        config_file = self.path("config.json")
        here = read_json(config_file) if os.path.exists(config_file) else None  # the config of the run in this folder, if there is one
        if here is not None and "config" not in here or here is None and os.path.isdir(self.dir) and os.listdir(self.dir):
            raise UsageError(f"{self.dir} is not empty and holds no run: give another --out_dir, so that nothing is overwritten")
        if here and not cfg.resume:
            raise UsageError(f"{self.dir} already holds a run: --resume=auto continues it, --out_dir=... starts another; or delete the folder")
        self.checkpoint, mine = self.choose(cfg, here)
        before = read_json(os.path.join(self.checkpoint, "config.json")) if self.checkpoint else here
        if self.checkpoint and (done := read_json(os.path.join(self.checkpoint, "state.json"))["step"]) > cfg.steps:
            raise UsageError(f"steps={cfg.steps}, but {self.checkpoint} has done {done}: raise --steps")
        if here:  # also without a checkpoint: the lines of another run would be dropped
            self.check_same(cfg, data, here)
        if before and group.master:
            self.print_changes(cfg, data, before)
        self.eval_every_before = before["config"]["eval_every"] if before else cfg.eval_every
        if cfg.resume == "auto" and not mine and self.checkpoint:
            cfg = dataclasses.replace(cfg, resume=self.checkpoint)  # so that the fork stays known as one
        self.describe, self.mine = json.dumps({"config": without_secrets(cfg), "data": data, "versions": versions()}, indent=1), mine

    def choose(self, cfg, here):
        """-> (the checkpoint to start from or None, whether it is of the run in this folder and not one that it is forked from)."""
        parent = here["config"]["resume"] if here else ""  # what the run in this folder was forked from, if it was
        if cfg.resume == "auto" and os.path.exists(self.path("ckpt", "latest")):
            return self.newest_intact(), True
        checkpoint = cfg.resume if cfg.resume != "auto" else parent if parent != "auto" else ""
        if not checkpoint:
            return None, False
        if not os.path.exists(os.path.join(checkpoint, "state.json")):
            raise UsageError(f"resume={cfg.resume}: there is no checkpoint {checkpoint} (no state.json); give a folder like out/run/ckpt/step_000100")
        if damage := self.damage(checkpoint):
            raise UsageError(f"resume={cfg.resume}: the checkpoint is damaged ({damage}): give another one, or --resume=auto for the newest that is intact")
        mine = os.path.dirname(os.path.abspath(checkpoint)) == os.path.abspath(self.path("ckpt"))
        if here and not mine and checkpoint != parent:
            raise UsageError(f"{self.dir} already holds a run and {checkpoint} belongs to another one: continue it in its own folder or in a new --out_dir")
        return checkpoint, mine

    def check_same(self, cfg, data, here):
        """UsageError where the run in this folder would not be continued as it began."""
        differ = [f"{k}: {old!r} -> {new!r}" for k, old, new in differences(cfg, here) if k not in FREE_ON_RESUME | ROUNDING]
        if differ:
            raise UsageError(f"{self.dir} was begun with another config, and these change the result: {'; '.join(differ)}. Resume with the same values, or fork it: "
                             f"--resume={self.path('ckpt', 'step_...')} --out_dir=another")
        changed = [use for use, now in data.items() if here.get("data", {}).get(use, now) != now]
        if changed:
            raise UsageError(f"{self.dir} was begun with another {' and '.join(changed)} than there is now: put back what was changed, or start afresh with another --out_dir")

    def print_changes(self, cfg, data, before):
        """What may make the lines after a resume differ from those of a run that went on."""
        source = self.checkpoint or self.dir
        if differ := [f"{k}: {old!r} -> {new!r}" for k, old, new in differences(cfg, before) if k not in FREE_ON_RESUME]:
            print(f"note: {source} was made with other knobs: {'; '.join(differ)}")
        if changed := [use for use, now in data.items() if before.get("data", {}).get(use, now) != now]:
            print(f"note: {source} was made with another {' and '.join(changed)}")
        if before["versions"] != versions():
            print(f"note: {source} was made with {before['versions']}, this is {versions()}: results may differ")

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def newest_intact(self):
        """The checkpoint that `latest` names, or the newest before it whose files are what was written -> path."""
        with open(self.path("ckpt", "latest")) as file:
            latest = file.read().strip()
        for name in [latest, *self.checkpoints(before=latest)[::-1]] if re.fullmatch(r"step_\d+", latest) else self.checkpoints()[::-1]:
            damage = self.damage(self.path("ckpt", name))
            if not damage:
                return self.path("ckpt", name)
            if self.group.master:
                print(f"warning: checkpoint {self.path('ckpt', name)} is damaged ({damage}): trying the one before")
        raise UsageError(f"no checkpoint in {self.path('ckpt')} is intact: restore one, or start afresh with another --out_dir")

    def checkpoints(self, before=""):
        """Names of the complete checkpoints, or of those older than the one named `before`, oldest first."""
        step = lambda name: int(name.removeprefix("step_"))
        found = [name for name in os.listdir(self.path("ckpt")) if re.fullmatch(r"step_\d+", name)]
        return sorted((name for name in found if not before or step(name) < step(before)), key=step)

    def damage(self, checkpoint):
        """What is wrong with a checkpoint's files, found by all ranks together -> text, empty if nothing is."""
        def written():
            try:
                return dict(read_json(os.path.join(checkpoint, "checksums.json")))
            except (OSError, ValueError, TypeError):
                return None

        written = self.group.on_master(written)
        if written is None:
            return "no readable checksums.json"
        own = sorted(written)[self.group.rank :: self.group.world]
        wrong = self.group.gather([name for name in own if checksum(os.path.join(checkpoint, name)) != written[name]])
        return f"not as it was written: {', '.join(sorted(wrong))}" if wrong else ""

    def write(self, path, text):
        """Replace a small file; a reader sees the old one or the new one."""
        with open(path + ".tmp", "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".tmp", path)

    def append(self, name, record):
        if not self.group.master:
            return
        with open(self.path(name), "a") as file:
            file.write(json.dumps({k: jsonable(v) for k, v in record.items()}, allow_nan=False) + "\n")

    def read(self, name):
        """Records of a JSONL file; a last line torn by a kill is left out."""
        records = []
        if os.path.exists(self.path(name)):
            with open(self.path(name)) as file:
                for line in file:
                    if line.endswith("\n"):
                        records.append(json.loads(line))
        return records

    def best(self):
        """Step and score of the model in best/; step 0 if there is none yet."""
        path = self.path("best", "evaluation.json")
        return read_json(path) if os.path.exists(path) else {"step": 0, "score": -1.0}

    def begin(self, step, steps):
        """Make the folder and write config.json; drop what an uninterrupted run of `steps` steps would not have written by the end of step number `step`."""
        def write():
            try:
                os.makedirs(self.path("ckpt"), exist_ok=True)
            except OSError as error:
                raise UsageError(f"out_dir={self.dir} cannot be made: {error}") from error
            self.write(self.path("config.json"), self.describe)
            if self.mine:
                self.write(self.path("ckpt", "latest"), os.path.basename(os.path.normpath(self.checkpoint)))
                if (lines := len(self.read("metrics.jsonl"))) < step:
                    print(f"warning: {self.path('metrics.jsonl')} has {lines} lines of the {step} steps done: the others are lost, the checkpoint is not")

        self.group.barrier()  # nobody writes before all have looked
        self.group.on_master(write)
        evaluated = step > 0 and (step % self.eval_every_before == 0 or step == steps)
        for name, end in {"metrics.jsonl": step, "samples.jsonl": step, "eval.jsonl": step + evaluated}.items() if self.group.master else ():
            self.write(self.path(name), "".join(json.dumps(r) + "\n" for r in self.read(name) if r["step"] < end))
        self.group.barrier()

    def save(self, step, policy, optimizer, parts, keep):
        """Checkpoint after `step` steps. `latest` names it only when it is complete; then all but the newest `keep` go (0: none)."""
        name = f"step_{step:06d}"
        target = self.path("ckpt", name)
        beside = target + ".tmp"

        def finish():
            self.write(os.path.join(beside, "checksums.json"), json.dumps(dict(sums), indent=1))
            for log in ("metrics.jsonl", "samples.jsonl", "eval.jsonl"):
                if os.path.exists(self.path(log)):
                    with open(self.path(log), "a") as file:
                        os.fsync(file.fileno())  # lines of steps that the checkpoint has done must outlive a power cut too
            shutil.rmtree(target, ignore_errors=True)  # there after a resume from an older checkpoint; `latest` does not name it then
            os.rename(beside, target)
            self.write(self.path("ckpt", "latest"), name)
            older = self.checkpoints(before=name)
            for old in older[: max(len(older) + 1 - keep, 0)] if keep else ():
                shutil.rmtree(self.path("ckpt", old))

        def fill():
            self.write(os.path.join(beside, "config.json"), self.describe)
            self.write(os.path.join(beside, "state.json"), json.dumps({"step": step} | {k: part.state_dict() for k, part in parts.items()}))
            return sorted(os.path.relpath(os.path.join(folder, name), beside) for folder, _, found in os.walk(beside) for name in found)

        try:
            self.group.on_master(lambda: shutil.rmtree(beside, ignore_errors=True))
            save_weights(policy, optimizer, beside)
            names = self.on_disk(fill)
            sums = self.group.gather([(name, checksum(os.path.join(beside, name))) for name in names[self.group.rank :: self.group.world]])
            self.on_disk(finish)
        except (OSError, CheckpointException) as error:  # the disk is full, say
            causes = [cause for cause, _ in error.failures.values()] if isinstance(error, CheckpointException) else [error]
            if not all(isinstance(cause, OSError) for cause in causes):
                raise
            shutil.rmtree(beside, ignore_errors=True)
            raise UsageError(f"the checkpoint after {step} steps could not be written: {causes[0]}. Those before are intact: make room, then --resume=auto") from error

    def on_disk(self, do):
        """What do() returns on the master, on every rank; its OSError too."""
        def caught():
            try:
                return do(), None
            except OSError as error:
                return None, error

        result, problem = self.group.on_master(caught)
        if problem:
            raise problem
        return result

    def load(self, policy, optimizer, parts):
        """Restore everything from the checkpoint -> number of steps done."""
        load_weights(policy, optimizer, self.checkpoint)
        state = read_json(os.path.join(self.checkpoint, "state.json"))
        for name, part in parts.items():
            if name in state:  # a fork may switch an adversary on
                try:
                    part.load_state_dict(state[name])
                except ValueError as error:
                    raise UsageError(f"{self.checkpoint}: {error}") from error
        return state["step"]


def checksum(path):
    """[bytes, CRC-32] of a file; None if it cannot be read."""
    size = crc = 0
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                size, crc = size + len(block), zlib.crc32(block, crc)
    except OSError:
        return None
    return [size, crc]


