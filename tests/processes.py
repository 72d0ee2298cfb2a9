"""Scripts of this project in processes of their own, as python and torchrun start them but without
the seconds that imports take: forked from a process that has imported the libraries, and nothing of
this project. What torchrun itself does is tested with torchrun."""
import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TORCH = ["torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp",
         "transformers.models.auto.tokenization_auto",
         "transformers.models.qwen3.modeling_qwen3"]
VLLM = [*TORCH, "vllm.entrypoints.llm", "vllm.v1.engine.core", "vllm.v1.worker.cpu_worker"]
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
         "VLLM_NO_USAGE_STATS": "1"}  # as engines/vllm_engine.py sets them before it imports vLLM
servers = {}  # whether with vLLM -> process that forks


def python(*arguments, ranks=None, vllm=False, timeout=300, folder=ROOT, **environment):
    """What `python *arguments` does or, with `ranks`, `torchrun --nproc_per_node=RANKS *arguments`
    -> CompletedProcess. If a rank fails, the others are killed. `vllm`: with vLLM imported too."""
    if vllm not in servers:
        servers[vllm] = subprocess.Popen(
            [sys.executable, __file__, *(VLLM if vllm else TORCH)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | (QUIET if vllm else {}))
        atexit.register(servers[vllm].terminate)
    with tempfile.TemporaryDirectory() as written:
        job = {"arguments": list(map(str, arguments)), "ranks": ranks, "timeout": timeout,
               "folder": str(folder), "environment": dict(os.environ) | environment,
               "written": [os.path.join(written, name) for name in ("out", "err")]}
        print(json.dumps(job), file=servers[vllm].stdin, flush=True)
        status = int(servers[vllm].stdout.readline())
        output = []
        for path in job["written"]:
            with open(path) as file:
                output.append(file.read())
    return subprocess.CompletedProcess(arguments, status, *output)


def torchrun(ranks, *arguments, **options):
    """`ranks` of a script, which must succeed."""
    done = python(*arguments, ranks=ranks, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


# ---------- the process that forks ----------


def serve(libraries):
    """A job a line, whose exit status is printed when it is over."""
    for name in libraries:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        watcher = os.fork()
        if not watcher:
            return work(job)
        print(os.waitstatus_to_exitcode(os.waitpid(watcher, 0)[1]), flush=True)


def work(job):
    """Fork the ranks and watch them; each of them comes out of here as the script."""
    for number, path in enumerate(job["written"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ |= job["environment"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = []
    for rank in range(job["ranks"] or 1):
        running.append(os.fork())
        if not running[-1]:
            if job["ranks"]:
                here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["ranks"],
                        "LOCAL_WORLD_SIZE": job["ranks"], "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": port}
                os.environ |= {name: str(value) for name, value in here.items()}
            return become(job["arguments"])
    signal.signal(signal.SIGALRM, lambda *_: [os.kill(rank, signal.SIGKILL) for rank in running])
    signal.alarm(job["timeout"])
    failed = 0
    while running:
        ended, status = os.wait()
        running.remove(ended)
        if status and not failed:
            failed = os.waitstatus_to_exitcode(status)
            for rank in running:
                os.kill(rank, signal.SIGKILL)
    os._exit(failed & 0xFF)


def become(arguments):
    sys.argv = arguments
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1:])
