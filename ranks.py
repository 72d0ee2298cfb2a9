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
    """The ranks of this run, what they run on, and the type they compute in. Under torchrun: its process group, gloo on CPUs and nccl on GPUs.
    Otherwise one rank: without a process group in float32 on a CPU, and with one elsewhere, so that one rank runs the same mixed precision as many.

    `with Group(cfg) as group:` closes it. An error on one of several ranks prints its traceback and ends the process at once: closing in
    good order would wait for ranks that wait for this one."""

    def __init__(self, cfg):
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device=cuda, but PyTorch sees no GPU: --device=cpu, or install a CUDA build of PyTorch")
        if self.device == "cpu":
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
        by_device = "bfloat16" if self.device == "cuda" else "float32"
        self.dtype = getattr(torch, by_device if cfg.dtype == "auto" else cfg.dtype)
        self.rank, self.world, self.shards, self.mesh, self.opened = 0, 1, 1, None, False
        self.set_here = []  # environment variables of a process that stands in for torchrun
        if os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE"):  # one host: nothing needs to listen beyond loopback
            for key, value in {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}.items():
                os.environ.setdefault(key, value)
        alone = "RANK" not in os.environ and (self.device == "cuda" or self.dtype != torch.float32)
        if alone:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                stands_for = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                              "MASTER_PORT": str(free.getsockname()[1])}
            os.environ |= stands_for
            self.set_here = list(stands_for)
        if "RANK" not in os.environ:
            return
        if self.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not dist.is_initialized():
            timeout = timedelta(seconds=cfg.collective_timeout)
            store, rank, world = (dist.HashStore(), 0, 1) if alone else next(dist.rendezvous("env://", timeout=timeout))
            # after a restart torchrun's store still has the dead processes' addresses: keep attempts apart
            store = dist.PrefixStore("attempt_" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo", store=store, rank=rank, world_size=world, timeout=timeout)
            self.opened = True
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.shards = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        shape, names = ((self.world,), ("shard",)) if self.shards == self.world else ((self.world // self.shards, self.shards), ("replicate", "shard"))
        self.mesh = init_device_mesh(self.device, shape, mesh_dim_names=names)  # several hosts: shard inside a host, replicate across

    @property
    def master(self):
        return self.rank == 0

    def sum(self, values):
        """Sum of a float array over the ranks, the same on every rank -> numpy float64 of the same shape."""
        total = torch.from_numpy(np.array(values, dtype=np.float64))
        if self.world > 1:
            dist.all_reduce(total)
        return total.numpy()

    def gather(self, items):
        """The lists of all ranks joined in rank order, on every rank."""
        if self.world == 1:
            return items
        lists = [None] * self.world
        dist.all_gather_object(lists, items)
        return [item for one in lists for item in one]

    def broadcast(self, value):
        """The master's value, on every rank."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, 0)
        return box[0]

    def on_master(self, do, *arguments):
        """What do(*arguments) returns on the master, on every rank; its UsageError too, so that no rank waits for a master that gave up."""
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
        for key in self.set_here:
            os.environ.pop(key, None)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.world > 1 and kind is not None and not issubclass(kind, (UsageError, KeyboardInterrupt, SystemExit)):
            print(f"error on rank {self.rank} of {self.world}:", file=sys.stderr)
            traceback.print_exception(kind, error, trace)
            sys.stderr.flush()
            os._exit(1)  # the launcher, or the closed connections, end the other ranks
        self.close()
