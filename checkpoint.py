"""How a run starts, and its checkpoints: what they hold, how they are verified and chosen."""
import dataclasses
import json
import os
import re
import shutil
import warnings
import zlib
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from configurator import UsageError
from pretrained import plain_name
from runlog import SECRET, RunLog, read_json, replace_file, versions, without_secrets

# PyTorch says so at each checkpoint of a single process
warnings.filterwarnings("ignore", message="torch.distributed is disabled")

LAYOUT = 3  # of a run folder's files; raised when files that were written before no longer load
FILE_BYTES = 2**32  # of all ranks' shards together, in one file of weights

# ---------- weights ----------


def checkpoint_state(policy, optimizer):
    """-> (the policy's state dict, the optimizer's or {}, the tensors of both by the name that they
    have in a checkpoint). A tied weight comes once."""
    if optimizer and not optimizer.state:
        # PyTorch fills in the moments of an optimizer that has not stepped, but it refuses while
        # there are gradients
        optimizer.zero_grad()
    weights, moments = get_state_dict(policy, [optimizer] if optimizer else [])
    tensors = {}
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:  # with LoRA only the adapters
            tensors[f"policy.{plain_name(name)}"] = weights[plain_name(name)]
    for name, values in moments.get("state", {}).items():
        for key, tensor in values.items():
            tensors[f"optimizer.{name}.{key}"] = tensor
    return weights, moments, tensors


def save_weights(policy, optimizer, checkpoint):
    """Write policy and optimizer into `checkpoint`/weights as safetensors, sharded where they are
    sharded. An error of one rank, of a full disk for instance, is raised on all."""
    *_, tensors = checkpoint_state(policy, optimizer)
    file_of = {}
    size = 0
    for name, tensor in tensors.items():
        # several files, because a file is held in memory while it is written
        file_of[name] = 1 + size // FILE_BYTES
        size += tensor.numel() * tensor.element_size()
    path = os.path.join(checkpoint, "weights")
    writer = dcp.HuggingFaceStorageWriter(path, file_of, save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer)
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from error


def load_weights(policy, optimizer, checkpoint):
    """Read into policy and optimizer (None: only the policy), in place, what `save_weights`
    wrote."""
    weights, moments, tensors = checkpoint_state(policy, optimizer)
    reader = dcp.HuggingFaceStorageReader(os.path.join(checkpoint, "weights"))
    # this fills the tensors in place, and they are the tensors of `weights` and `moments`
    dcp.load(tensors, storage_reader=reader)
    optimizers = [optimizer] if optimizer else []
    set_state_dict(policy, optimizers, model_state_dict=weights, optim_state_dict=moments)


# ---------- whether files are what was written ----------


def checksum(path):
    """[bytes, CRC-32] of a file; None if it cannot be read."""
    crc = 0
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                crc = zlib.crc32(block, crc)
            return [file.tell(), crc]
    except OSError:
        return None


def checksums(checkpoint, names, group):
    """(name, checksum) of files in a checkpoint. Every rank reads its share of them, and all get
    the whole list."""
    share = names[group.rank :: group.world]
    return group.gather([(name, checksum(Path(checkpoint, name))) for name in share])


def read_checksums(checkpoint):
    """name -> checksum as it was written down with the checkpoint; None if that is unreadable."""
    try:
        return dict(read_json(Path(checkpoint, "checksums.json")))
    except (OSError, ValueError, TypeError):
        return None


def damage_of(checkpoint, group):
    """What is wrong with a checkpoint's files -> text, empty if they are what was written."""
    written = group.on_master(read_checksums, checkpoint)
    if written is None:
        return "no readable checksums.json"
    found = checksums(checkpoint, sorted(written), group)
    wrong = sorted(name for name, value in found if value != written[name])
    return f"not as it was written: {', '.join(wrong)}" if wrong else ""


# ---------- which checkpoints there are ----------


def complete_checkpoints(folder):
    """Names of the complete checkpoints in `folder`, newest first."""
    names = [name for name in os.listdir(folder) if re.fullmatch(r"step_\d+", name)]
    return sorted(names, key=lambda name: int(name.removeprefix("step_")), reverse=True)


def newest_intact(folder, group):
    """The checkpoint that `latest` names, or the newest before it whose files are what was written
    -> path, empty if there is none."""
    latest = Path(folder, "latest").read_text().strip()
    names = complete_checkpoints(folder)
    names = names[names.index(latest) :] if latest in names else [latest, *names]
    for name in names:
        path = os.path.join(folder, name)
        damage = damage_of(path, group)
        if not damage:
            return path
        if group.master:
            print(f"warning: checkpoint {path} is damaged ({damage}): trying the one before")
    return ""


# ---------- how a run starts ----------


@dataclasses.dataclass
class Found:
    """What decides how a run starts: two knobs, and what is on the disk."""

    out_dir: str
    resume: str  # empty, auto, or the path of a checkpoint
    folder: str = "empty"  # what is in out_dir: empty (or missing) | run | other
    forked_from: str = ""  # the checkpoint of another run with which the run in out_dir began
    has_saved: bool = False  # the run in out_dir has completed a checkpoint
    newest_intact: str = ""  # its newest checkpoint that is as it was written, under auto
    given: str = ""  # the checkpoint to start from otherwise: `resume`, under auto `forked_from`
    given_damage: str = ""  # what is wrong with its files
    given_is_own: bool = False  # it lies among the checkpoints of out_dir


def look(cfg, group, existing):
    """The facts for `decide`; `existing` is the config.json in out_dir, or None. A checkpoint is
    read as a whole to verify it, so only those are verified that the run may start from."""
    found = Found(cfg.out_dir, cfg.resume)
    if existing:
        found.folder = "run"
        found.forked_from = existing["forked_from"]
    elif os.path.isdir(cfg.out_dir) and os.listdir(cfg.out_dir):
        found.folder = "other"
    own_folder = Path(cfg.out_dir, "ckpt")
    found.has_saved = Path(own_folder, "latest").exists()
    if cfg.resume == "auto" and found.has_saved:
        found.newest_intact = newest_intact(own_folder, group)
    else:
        found.given = found.forked_from if cfg.resume == "auto" else cfg.resume
    if found.given:
        found.given_damage = damage_of(found.given, group)
        found.given_is_own = Path(found.given).resolve().parent == own_folder.resolve()
    return found


def decide(found):
    """How the run starts -> (fresh | continue | fork | refuse; the checkpoint to start from, or why
    it is refused). Fresh in a folder that holds a run begins that run again, from its step 0."""
    out_dir, resume, given = found.out_dir, found.resume, found.given
    if found.folder == "other":
        return "refuse", (f"{out_dir} is not empty and holds no run: give another --out_dir, "
                          "so that nothing is overwritten")
    if found.folder == "run" and not resume:
        return "refuse", (f"{out_dir} already holds a run: --resume=auto continues it, "
                          "--out_dir=... starts another; or delete the folder")
    if resume == "auto" and found.has_saved:
        if found.newest_intact:
            return "continue", found.newest_intact
        return "refuse", (f"no checkpoint in {out_dir}/ckpt is intact: "
                          "restore one, or start afresh with another --out_dir")
    if not given:
        return "fresh", ""
    if found.given_damage:
        return "refuse", (f"resume={given}: there is no intact checkpoint ({found.given_damage}): "
                          "give another folder like out/run/ckpt/step_000100, or --resume=auto "
                          "for the newest that is intact")
    if found.given_is_own:
        return "continue", given
    if found.folder == "run" and given != found.forked_from:
        return "refuse", (f"{out_dir} already holds a run and {given} belongs to another one: "
                          "continue it in its own folder or in a new --out_dir")
    return "fork", given


# ---------- whether a run is continued as it began ----------


def read_config(folder, cfg):
    """config.json of a run or a checkpoint; None if there is none. UsageError if another version
    of this program wrote it in a way that this one does not read."""
    path = Path(folder, "config.json")
    written = read_json(path) if path.exists() else {}
    if "config" not in written:
        # none at all, or another program's: exported models have one too
        return None
    # knobs that were removed since; those that were added had their defaults
    unknown = written["config"].keys() - without_secrets(cfg)
    if written.get("layout") != LAYOUT or unknown:
        raise UsageError(f"{path} was written by another version of this program: resume with that "
                         "version, or start afresh with another --out_dir")
    return written


def changed_knobs(cfg, before, rules):
    """Knobs that were others in the config.json `before`, and whose field says one of `rules` about
    a change on resume -> one text. A knob that is newer than the file had its default."""
    now = without_secrets(cfg)
    changed = []
    for field in dataclasses.fields(cfg):
        old = before["config"].get(field.name, field.default)
        new = now[field.name]
        if old != new and field.metadata["resume"] in rules:
            changed.append(f"{field.name}: {old!r} -> {new!r}")
    return "; ".join(changed)


def changed_inputs(fingerprints, before):
    """Which data or reward function has another fingerprint in the config.json `before` -> text."""
    old = before["data"]
    return " and ".join(use for use, new in fingerprints.items() if old.get(use, new) != new)


def check_same(cfg, fingerprints, existing):
    """UsageError where the run in out_dir would not be continued as it began."""
    if changed := changed_knobs(cfg, existing, ["same"]):
        raise UsageError(f"{cfg.out_dir} was begun with another config, and these change the "
                         f"result: {changed}. Resume with the same values, or fork it: "
                         f"--resume={cfg.out_dir}/ckpt/step_... --out_dir=another")
    if changed := changed_inputs(fingerprints, existing):
        raise UsageError(f"{cfg.out_dir} was begun with another {changed} than there is now: "
                         "put back what was changed, or start afresh with another --out_dir")


def print_changes(cfg, fingerprints, before, source):
    """What may make the lines after a resume differ from those of a run that went on."""
    now = versions()
    if changed := changed_knobs(cfg, before, ["same", "rounding"]):
        print(f"note: {source} was made with other knobs: {changed}")
    if changed := changed_inputs(fingerprints, before):
        print(f"note: {source} was made with another {changed}")
    if before["versions"] != now:
        print(f"note: {source} was made with {before['versions']}, this is {now}: "
              "results may differ")


# ---------- the run folder ----------


class RunFolder(RunLog):
    """The files of one run: its logs, its checkpoints, and config.json, which says what it is."""

    def __init__(self, cfg, group, fingerprints):
        super().__init__(cfg.out_dir, group)
        existing = read_config(cfg.out_dir, cfg)
        found = look(cfg, group, existing)
        action, detail = decide(found)
        if action == "refuse":
            raise UsageError(detail)
        self.continues = action == "continue"
        self.checkpoint = detail or None
        before = read_config(self.checkpoint, cfg) if self.checkpoint else existing
        # also without a checkpoint, because lines of a run with other knobs would be dropped
        if existing:
            check_same(cfg, fingerprints, existing)
        if before and group.master:
            print_changes(cfg, fingerprints, before, self.checkpoint or cfg.out_dir)
        self.eval_every_before = before["config"]["eval_every"] if before else cfg.eval_every
        forked_from = self.checkpoint if action == "fork" else found.forked_from
        self.description = json.dumps({
            "layout": LAYOUT,
            "config": without_secrets(cfg),
            "forked_from": SECRET.sub("***", forked_from),
            "data": fingerprints,
            "versions": versions(),
        }, indent=1)

    def best(self):
        """Step and score of the model in best/; step 0 if there is none yet."""
        path = self.path("best", "evaluation.json")
        return read_json(path) if os.path.exists(path) else {"step": 0, "score": -1.0}

    def begin(self, done, steps):
        """Make the folder and write config.json; drop what an uninterrupted run of `steps` steps
        would not have written when it had done `done` of them."""
        if done > steps:
            raise UsageError(f"steps={steps}, but {self.checkpoint} has done {done}: raise --steps")
        # no rank writes before all have looked at what there is
        self.group.barrier()
        self.group.on_master(self.prepare, done, steps)

    def prepare(self, done, steps):
        """The master's part of `begin`."""
        try:
            os.makedirs(self.path("ckpt"), exist_ok=True)
        except OSError as error:
            raise UsageError(f"out_dir={self.dir} cannot be made: {error}") from error
        replace_file(self.path("config.json"), self.description)
        if self.continues:
            replace_file(self.path("ckpt", "latest"), Path(self.checkpoint).name)
            lines = len(self.read("metrics.jsonl"))
            if lines < done:
                print(f"warning: {self.path('metrics.jsonl')} has {lines} lines of the {done} "
                      "steps done: the others are lost, the checkpoint is not")
        # Lines of an evaluation after `done` steps have that number; those of the last step one
        # less. The evaluation stays if it was due, or it would be missing after the resume.
        evaluated = done > 0 and (done % self.eval_every_before == 0 or done == steps)
        self.cut("metrics.jsonl", done)
        self.cut("samples.jsonl", done)
        self.cut("eval.jsonl", done + evaluated)

    def load(self, policy, optimizer, state):
        """Restore everything from the checkpoint -> number of steps done."""
        load_weights(policy, optimizer, self.checkpoint)
        saved = read_json(Path(self.checkpoint, "state.json"))
        try:
            for name, part in state.items():
                if name in saved:  # a fork may switch an adversary on
                    part.load_state_dict(saved[name])
        except ValueError as error:
            raise UsageError(f"{self.checkpoint}: {error}") from error
        return saved["step"]

    def save(self, done, policy, optimizer, state, keep):
        """Checkpoint after `done` steps, of `policy`, `optimizer` and `state` (name -> object with
        a state_dict). `latest` names it only when it is complete; then all but the newest `keep`
        go (0: none)."""
        name = f"step_{done:06d}"
        unfinished = self.path("ckpt", name + ".tmp")
        try:
            # a run that was killed may have left one; True: it is no error if there is none
            self.group.on_master(shutil.rmtree, unfinished, True)
            save_weights(policy, optimizer, unfinished)
            files = self.on_disk(self.write_state, unfinished, done, state)
            written = dict(checksums(unfinished, files, self.group))
            self.on_disk(self.complete, unfinished, name, written, keep)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise UsageError(f"the checkpoint after {done} steps could not be written: {error}. "
                             "Those before are intact: make room, then --resume=auto") from error

    def write_state(self, unfinished, done, state):
        """Write what is not in the weights -> names of all files of the checkpoint."""
        values = {name: part.state_dict() for name, part in state.items()}
        replace_file(Path(unfinished, "config.json"), self.description)
        replace_file(Path(unfinished, "state.json"), json.dumps({"step": done} | values))
        files = [path for path in Path(unfinished).rglob("*") if path.is_file()]
        return sorted(str(path.relative_to(unfinished)) for path in files)

    def complete(self, unfinished, name, written, keep):
        """Give a checkpoint its checksums and its name, and remove those that are too old."""
        target = self.path("ckpt", name)
        replace_file(Path(unfinished, "checksums.json"), json.dumps(written, indent=1))
        # there is one of that name after a resume from an older one; `latest` does not name it
        shutil.rmtree(target, ignore_errors=True)
        os.rename(unfinished, target)
        # from here on a resume starts with it, and those before may go
        replace_file(self.path("ckpt", "latest"), name)
        names = complete_checkpoints(self.path("ckpt"))
        for old in names[names.index(name) + keep :] if keep else []:
            shutil.rmtree(self.path("ckpt", old))

    def on_disk(self, do, *arguments):
        """What do(*arguments) returns on the master, on every rank; its OSError too."""
        # `on_master` hands on UsageErrors only; at another error the other ranks would wait for it
        def attempt():
            try:
                return do(*arguments)
            except OSError as error:
                return error

        result = self.group.on_master(attempt)
        if isinstance(result, OSError):
            raise result
        return result
