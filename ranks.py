"""The ranks of a run: what they run on, what they compute in, and how they talk."""
import gc
import os
import socket
import sys
import traceback
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from configurator import UsageError


class Group:
    """The ranks of this run. Under torchrun: its process group, gloo on CPUs and nccl on GPUs.
    Otherwise one rank: without a process group in float32 on a CPU, and with one elsewhere, so that
    one rank runs the same mixed precision as many.

    `with Group(cfg) as group:` closes it. An error on one of several ranks prints its traceback and
    ends the process at once: closing in good order would wait for ranks that wait for this one."""

    def __init__(self, cfg):
        self.device = cfg.device
        if cfg.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device=cuda, but PyTorch sees no GPU: --device=cpu, or install a "
                             "CUDA build of PyTorch")
        if self.device == "cpu":  # small models are fastest on one core
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
        by_device = "bfloat16" if self.device == "cuda" else "float32"
        self.dtype = getattr(torch, by_device if cfg.dtype == "auto" else cfg.dtype)
        self.rank = 0
        self.world = 1
        self.shards = 1  # ranks of one host, over which weights are sharded
        self.mesh = None
        self.opened = False
        self.environment = []  # variables of torchrun that this process set for itself
        keep_to_loopback()
        alone = "RANK" not in os.environ
        if alone and self.device == "cpu" and self.dtype == torch.float32:
            return
        if alone:
            self.stand_in_for_torchrun()
        if self.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not dist.is_initialized():
            self.open(alone, timedelta(seconds=cfg.collective_timeout))
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self.shards = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        shape, names = (self.world,), ("shard",)
        if self.shards < self.world:  # several hosts: shard inside a host, replicate across
            shape, names = (self.world // self.shards, self.shards), ("replicate", "shard")
        self.mesh = init_device_mesh(self.device, shape, mesh_dim_names=names)

    def stand_in_for_torchrun(self):
        """Set what it would set for a single process; vLLM reads it too."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        variables = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= variables
        self.environment = list(variables)

    def open(self, alone, timeout):
        """Start the process group; a process alone needs no listening store for it."""
        if alone:
            store, rank, world = dist.HashStore(), 0, 1
        else:
            store, rank, world = next(dist.rendezvous("env://", timeout=timeout))
        # after a restart torchrun's store has the dead processes' addresses: keep attempts apart
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt_{attempt}", store)
        backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
        self.opened = True

    @property
    def master(self):
        return self.rank == 0

    def sum(self, values):
        """Sum of an array over the ranks, the same on every rank -> numpy float64 of its shape."""
        total = torch.from_numpy(np.array(values, dtype=np.float64))
        if self.world > 1:
            dist.all_reduce(total)
        return total.numpy()

    def sum_by_name(self, named):
        """Sums over the ranks of floats and arrays, all in one collective -> dict of the same
        names."""
        sizes = [np.size(value) for value in named.values()]
        total = self.sum(np.concatenate([np.ravel(value) for value in named.values()]))
        pieces = np.split(total, np.cumsum(sizes)[:-1])
        return {name: piece if np.ndim(value) else piece[0]
                for (name, value), piece in zip(named.items(), pieces, strict=True)}

    def gather(self, items):
        """The lists of all ranks joined in rank order, on every rank."""
        if self.world == 1:
            return items
        lists = [None] * self.world
        dist.all_gather_object(lists, items)
        return [item for of_rank in lists for item in of_rank]

    def broadcast(self, value):
        """The master's value, on every rank."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, 0)
        return box[0]

    def on_master(self, do, *arguments):
        """What do(*arguments) returns on the master, on every rank; its UsageError too, so that no
        rank waits for a master that gave up."""
        result = problem = None
        if self.master:
            try:
                result = do(*arguments)
            except UsageError as error:
                problem = error
        result, problem = self.broadcast((result, problem))
        if problem:
            raise problem
        return result

    def barrier(self):
        if self.world > 1:
            dist.barrier()

    def close(self):
        if self.opened:
            gc.collect()  # what still holds a communicator goes before it
            dist.destroy_process_group()
            self.opened = False
        for name in self.environment:
            os.environ.pop(name, None)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        in_order = kind is None or issubclass(kind, (UsageError, KeyboardInterrupt, SystemExit))
        if self.world > 1 and not in_order:
            print(f"error on rank {self.rank} of {self.world}:", file=sys.stderr)
            traceback.print_exception(kind, error, trace)
            sys.stderr.flush()
            os._exit(1)  # the launcher, or the closed connections, end the other ranks
        self.close()


def keep_to_loopback():
    """On one host nothing needs to listen beyond loopback; what the user set stays."""
    if os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")
