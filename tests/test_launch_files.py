"""Claims about the files of launch/: what they start, what they do with SIGTERM, what they queue
again. Slurm's commands are stand-ins; torchrun is one in the quick tests, real in the slow ones."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml
from processes import torchrun
from test_train import metrics_of

from configurator import parse
from train import Config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = ["slurm_one_host.sh", "slurm_hosts.sh"]
JOB = "4711"
PATH = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"


def read(*names):
    with open(os.path.join(ROOT, *names), encoding="utf-8") as file:
        return file.read()


# ---------- a cluster of one machine ----------

STAND_INS = {
    # The command once a host, in parallel, and the highest status. As with the real one SIGTERM
    # kills the tasks outright.
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        for ((host = 0; host < SLURM_JOB_NUM_NODES; host++)); do
            SLURM_PROCID=$host SLURM_NODEID=$host "$@" &
            tasks+=($!)
        done
        echo "${tasks[@]}" > "$CLUSTER/tasks"
        trap 'kill -KILL "${tasks[@]}"' TERM
        highest=0
        for task in "${tasks[@]}"; do
            wait "$task"
            status=$?
            ((status > highest)) && highest=$status
        done
        exit "$highest" """,
    # A signal for a job reaches what its srun started, and not the batch script.
    "scancel": """
        [[ $* == "--signal=TERM $SLURM_JOB_ID" ]] || exit 1
        kill -TERM $(< "$CLUSTER/tasks")""",
    "scontrol": """
        case "$1 $2" in
            "show hostnames") [[ $3 == "host[1-2]" ]] && printf '127.0.0.1\\nno-such-host\\n' ;;
            "show job") echo "   JobState=${JOB_STATE:-RUNNING} Reason=None" ;;
            *) echo "scontrol $*" >> "$CLUSTER/calls" ;;
        esac""",
}

# Ends at once with $ENDS or, after SIGTERM and half a second, with $ENDS_AFTER_SIGTERM.
TORCHRUN = """
    printf '%s\\n' "$@" > "$CLUSTER/arguments.${SLURM_PROCID:-0}"
    [[ -n $ENDS ]] && exit "$ENDS"
    trap 'sleep 0.5; echo saved >> "$CLUSTER/calls"; exit "${ENDS_AFTER_SIGTERM:-1}"' TERM
    touch "$CLUSTER/running.${SLURM_PROCID:-0}"
    while :; do sleep 0.05; done"""


def descendants(pid):
    """All processes that `pid` started, and that these started."""
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    children = [int(child) for child in listed.split()]
    return children + [process for child in children for process in descendants(child)]


class Cluster:
    """Runs batch scripts in the folder `here`, where sbatch would have been called."""

    def __init__(self, folder, here):
        self.folder = folder
        self.here = here
        self.started = []
        (folder / "bin").mkdir()
        for name, body in STAND_INS.items():
            self.command(name, body)

    def command(self, name, body):
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def start(self, script, *arguments, ranks=2, **variables):
        """The batch script, as slurmd starts it: a copy that lies somewhere else."""
        copy = shutil.copy(os.path.join(ROOT, "launch", script), self.folder / "slurm_script")
        hosts = 2 if script == "slurm_hosts.sh" else 1
        of_job = {
            "SLURM_JOB_ID": JOB,
            "SLURM_JOB_NODELIST": "host[1-2]",
            "SLURM_JOB_NUM_NODES": str(hosts),
            "SLURM_GPUS_ON_NODE": str(ranks // hosts),
            "CLUSTER": str(self.folder),
            "PATH": f"{self.folder}/bin:{PATH}",
        }
        process = subprocess.Popen(
            ["/bin/bash", copy, *arguments],
            cwd=self.here,
            env=os.environ | of_job | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, script, *arguments, **options):
        """-> (exit status, what it printed)."""
        process = self.start(script, *arguments, **options)
        output, error = process.communicate(timeout=300)
        return process.returncode, output + error

    def stop(self, script, when, *arguments, signals=1, **options):
        """As `run`, with so many SIGTERM to the batch script when `when()` is true."""
        process = self.start(script, *arguments, **options)
        wait_for(when, process)
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        output, error = process.communicate(timeout=300)
        return process.returncode, output + error

    def calls(self):
        """What was asked of scontrol and when torchrun had saved, in this order."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def close(self):
        for process in self.started:
            if process.poll() is None:
                for child in [*descendants(process.pid), process.pid]:
                    os.kill(child, signal.SIGKILL)


def wait_for(condition, process):
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def scripts_only(tmp_path):
    """A cluster where torchrun is a stand-in too."""
    cluster = Cluster(tmp_path, tmp_path)
    cluster.command("torchrun", TORCHRUN)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path, ROOT)
    yield cluster
    cluster.close()


def running_on(cluster, script):
    """Whether the stand-in of torchrun waits for its signal on all hosts."""
    hosts = ["0", "1"] if script == "slurm_hosts.sh" else ["0"]
    return lambda: all((cluster.folder / f"running.{host}").exists() for host in hosts)


REQUEUE = f"scontrol requeue {JOB}"


# ---------- what the scripts do ----------


@pytest.mark.parametrize("script", SCRIPTS)
def test_arguments_reach_the_trainer_as_they_were_given_and_it_always_resumes(scripts_only, script):
    given = ["config/a.py", "--lr=1e-6", "--eval_sets=", "--template=two words"]
    assert scripts_only.run(script, *given, ENDS="0")[0] == 0
    arguments = (scripts_only.folder / "arguments.0").read_text().splitlines()
    assert arguments[arguments.index("train.py") :] == ["train.py", *given, "--resume=auto"]


def test_hosts_meet_at_the_first_of_them_under_the_name_of_the_job(scripts_only):
    scripts_only.run("slurm_hosts.sh", "config/a.py", ENDS="0", ranks=16)
    of_hosts = [(scripts_only.folder / f"arguments.{host}").read_text() for host in (0, 1)]
    assert of_hosts[0] == of_hosts[1]
    options = of_hosts[0].splitlines()[:-3]
    assert sorted(options) == [
        "--nnodes=2",
        "--nproc_per_node=8",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=127.0.0.1:29500",
        f"--rdzv_id={JOB}",
        "--shutdown_timeout=540",
    ]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_run_that_ends_by_itself_passes_its_status_on_and_is_not_queued_again(
    scripts_only, script, status
):
    assert scripts_only.run(script, "config/a.py", ENDS=str(status))[0] == status
    assert scripts_only.calls() == []


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("signals", [1, 2])
def test_after_sigterm_the_job_is_queued_again_once_its_ranks_have_saved(
    scripts_only, script, signals
):
    """A second SIGTERM, which comes amid the stop, changes nothing."""
    ready = running_on(scripts_only, script)
    status, _ = scripts_only.stop(script, ready, "config/a.py", signals=signals)
    saved = ["saved"] * (2 if script == "slurm_hosts.sh" else 1)
    assert scripts_only.calls() == [*saved, REQUEUE] and status == 1


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "variables, status", [({"JOB_STATE": "COMPLETING"}, 1), ({"ENDS_AFTER_SIGTERM": "0"}, 0)]
)
def test_a_job_that_was_cancelled_or_is_done_by_then_is_not_queued_again(
    scripts_only, script, variables, status
):
    """Slurm would queue a job again that somebody cancels, if the script asked for it."""
    ready = running_on(scripts_only, script)
    assert scripts_only.stop(script, ready, "config/a.py", **variables)[0] == status
    assert set(scripts_only.calls()) == {"saved"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_a_config_nothing_starts_and_the_command_is_shown(scripts_only, script):
    status, output = scripts_only.run(script)
    assert status != 0 and f"launch/{script} config/" in output
    assert not (scripts_only.folder / "arguments.0").exists()


# ---------- what is written in the files ----------


def test_the_scripts_pass_shellcheck():
    found = shutil.which("shellcheck", path=PATH)
    assert found, "shellcheck is missing: pip install -e '.[test]'"
    paths = [os.path.join(ROOT, "launch", name) for name in SCRIPTS]
    done = subprocess.run([found, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_slurm_is_asked_with_options_of_sbatch_before_the_first_command(script):
    """Options of sbatch's manual page. Those after the first command would be ignored."""
    text = read("launch", script)
    head = re.match(r"#!/bin/bash\n(?:#.*\n)+", text)[0]
    assert "#SBATCH" not in text.removeprefix(head)
    options = " ".join(re.findall(r"^#SBATCH (.*)$", head, re.M)).split()
    names = {option.partition("=")[0] for option in options}
    known = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "exclusive", "mem", "time"}
    assert names <= {f"--{name}" for name in known | {"requeue", "open-mode", "signal"}}
    assert {"--gpus-per-node=8", "--requeue", "--open-mode=append"} <= set(options)


@pytest.mark.parametrize("script", SCRIPTS)
def test_ranks_have_longer_than_torchruns_30_seconds_and_less_than_slurm_gives(script):
    text = read("launch", script)
    warning = int(re.search(r"^#SBATCH --signal=B:TERM@(\d+)$", text, re.M)[1])
    ranks = int(re.search(r"--shutdown_timeout=(\d+) ", text)[1])
    assert 30 < ranks <= warning - 60


@pytest.mark.parametrize("name", [*SCRIPTS, "skypilot.yaml"])
def test_the_command_in_a_files_head_names_a_config_and_knobs_and_is_in_the_page(name):
    head = re.match(r"(?:#.*\n)+", read("launch", name))[0]
    usage = re.search(r"^#   ((?:sbatch|sky) (?:.*\\\n#  )*.*)$", head, re.M)[1]
    words = shlex.split(usage.replace("\\\n#", ""))
    assert f"launch/{name}" in words
    command = words[words.index(f"launch/{name}") + 1 :]
    if name == "skypilot.yaml":
        command = next(word for word in words if word.startswith("TRAIN=")).split("=", 1)[1].split()
    parse(Config, [os.path.join(ROOT, command[0]), *command[1:]])
    page = [shlex.split(line, comments=True) for line in
            read("docs", "running.md").replace("\\\n", "").splitlines()
            if line.startswith(("sbatch ", "sky "))]
    assert words in page


# ---------- SkyPilot ----------


def test_the_task_has_keys_and_values_that_skypilot_knows():
    """The keys are some of those in get_task_schema, get_resources_schema and get_storage_schema
    of sky/utils/schemas.py in skypilot 0.14.1, which refuses others; the modes are StorageMode."""
    task = yaml.safe_load(read("launch", "skypilot.yaml"))
    of_task = {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "volumes"}
    assert set(task) <= of_task | {"setup", "run"}
    of_resources = {"accelerators", "use_spot", "disk_size", "infra", "job_recovery", "cpus"}
    assert set(task["resources"]) <= of_resources
    assert all(re.fullmatch(r"[\w-]+:8", card) for card in task["resources"]["accelerators"])
    assert type(task["num_nodes"]) is int and task["resources"]["use_spot"] is True
    assert all(value is None or type(value) is str for value in task["envs"].values())
    for mount in task["file_mounts"].values():
        assert set(mount) <= {"name", "source", "store", "mode"}
        assert mount["mode"] in {"MOUNT", "COPY", "MOUNT_CACHED"}
    assert "vllm==0.30.0" in task["setup"].split()


def test_the_run_folder_of_the_task_is_in_the_bucket():
    task = yaml.safe_load(read("launch", "skypilot.yaml"))
    out_dir, = re.findall(r'--out_dir="([^"]*)"', task["run"])
    mount, = task["file_mounts"]
    assert out_dir == f"{mount}/$RUN" and "RUN" in task["envs"]


@pytest.mark.slow
def test_the_run_command_of_the_task_trains_on_two_nodes_and_resumes(tmp_path):
    """Two nodes of one rank each, on one machine."""
    run = yaml.safe_load(read("launch", "skypilot.yaml"))["run"]
    run = run.replace("/bucket/", f"{tmp_path}/").replace("29500", free_port())
    run = run.replace(". .venv/bin/activate", "")  # the tests' environment is on PATH

    def nodes(steps):
        knobs = " ".join([*QUICK, f"--steps={steps}"])
        of_task = {"SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.2", "SKYPILOT_NUM_NODES": "2",
                   "SKYPILOT_NUM_GPUS_PER_NODE": "1", "RUN": "first", "PATH": PATH,
                   "TRAIN": f"config/arith_gdro.py {knobs}"}
        started = [subprocess.Popen(["bash", "-c", run], stdout=subprocess.PIPE, text=True,
                                    env=os.environ | LOOPBACK | of_task
                                    | {"SKYPILOT_NODE_RANK": rank})
                   for rank in ("0", "1")]
        output = [node.communicate(timeout=300)[0] for node in started]
        assert [node.returncode for node in started] == [0, 0]
        return "".join(output)

    assert "over 2 cpu ranks" in nodes(2)
    assert "2 steps done" in nodes(3)
    assert [m["step"] for m in metrics_of(tmp_path / "first")] == [0, 1, 2]


# ---------- with torchrun and the trainer ----------

QUICK = ["--device=cpu", "--prompts_per_step=16", "--eval_sets=", "--save_every=100"]
LOOPBACK = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PET_LOCAL_ADDR": "127.0.0.1"}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_stopped_by_slurm_and_queued_again_is_one_that_nobody_disturbed(cluster, script):
    """Two ranks: on one host, and on two hosts of one each. Done, it is not queued again."""

    def arguments(name):
        return ["config/arith_gdro.py", *QUICK, "--steps=12", f"--out_dir={cluster.folder}/{name}"]

    def variables():
        return LOOPBACK | {"RDZV_PORT": free_port()}

    hosts = {"PER_HOST": "1"} if script == "slurm_hosts.sh" else {}
    torchrun(2, "tests/rank_checks.py", "train", *arguments("whole"), **hosts)
    metrics = cluster.folder / "cut" / "metrics.jsonl"
    amid = lambda: metrics.exists() and metrics.read_text().count("\n") >= 2  # noqa: E731
    status, output = cluster.stop(script, amid, *arguments("cut"), **variables())
    done = len(metrics_of(cluster.folder / "cut"))
    assert status == 1 and f"saved after {done} steps" in output and 2 <= done < 12, output
    assert (cluster.folder / "cut" / "ckpt" / "latest").read_text() == f"step_{done:06d}"
    assert cluster.calls() == [REQUEUE]
    status, output = cluster.run(script, *arguments("cut"), **variables())
    assert status == 0 and f"{done} steps done" in output, output
    assert "over 2 cpu ranks" in output
    whole, cut = (metrics_of(cluster.folder / name) for name in ("whole", "cut"))
    assert cut == whole and len(whole) == 12
    assert cluster.calls() == [REQUEUE]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_that_refuses_its_arguments_is_not_queued_again(cluster, script):
    """The trainer ends with 2, and torchrun with 1."""
    variables = LOOPBACK | {"RDZV_PORT": free_port()}
    arguments = ["config/arith_gdro.py", "--no_such_knob=1"]
    status, output = cluster.run(script, *arguments, **variables)
    assert status == 1 and "no_such_knob" in output and "exitcode  : 2" in output, output
    assert cluster.calls() == []
