"""Every measurement runs: small sizes, no times asserted."""
import importlib.util
import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def bench(command, **environment):
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, cwd=ROOT, env=os.environ | environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def test_controllers():
    out = bench("bench/controllers.py --prompts=64,128 --known=300 --repeats=2")
    assert len(re.findall(r"^\| (?:64|128) \| [\d.]+ \([\d.]+ - [\d.]+\) \| [\d.]+ \(", out, re.M)) == 2


def test_padding():
    out = bench("bench/padding.py --steps=1")
    shares = re.findall(r"^\| (\d) \| ([\d.]+) .*? \| ([\d.]+) .*? \| ([\d.]+)", out, re.M)
    assert [row[0] for row in shares] == ["1", "8"] and all(float(row[1]) >= 95 and float(row[1]) >= float(row[2]) > float(row[3]) for row in shares)


@pytest.mark.slow
def test_logprob_memory():
    out = bench("bench/logprob_memory.py --tokens=512 --vocabulary=20000 --width=64 --repeats=1 --threads=1")
    assert len(re.findall(r"^\| (?:alone|one layer) \| (?:full|ours) \| [\d,]+ ", out, re.M)) == 4
    differences = re.findall(r"largest difference of a gradient (\S+) of", out)
    assert len(differences) == 2 and all(float(difference) < 1e-5 for difference in differences)


@pytest.mark.slow
def test_generation():
    out = bench("bench/generation.py --prompts=4 --tokens=8 --repeats=1 --layers=2 --width=64")
    assert len(re.findall(r"^\| (?:transformers generate|plain engine.*?) \| [\d,]+ \(", out, re.M)) == 3


@pytest.mark.slow
def test_vs_trl_this_side():
    out = bench("bench/vs_trl.py --only=ours --prompts=4 --tokens=8 --steps=5 --repeats=1")
    assert re.search(r"^\| ours \| \d", out, re.M) and re.search(r"rest [\d.]+ %$", out, re.M)


@pytest.mark.slow
@needs("trl")
def test_vs_trl_that_side():
    assert re.search(r"^\| trl \| \d", bench("bench/vs_trl.py --only=trl --prompts=4 --tokens=8 --steps=5 --repeats=1"), re.M)


@pytest.mark.slow
@needs("vllm")
def test_weight_sync():
    assert re.search(r"^\| [\d.]+ \| [\d.]+ \(", bench("bench/weight_sync.py --layers=2 --width=64 --vocabulary=512 --repeats=1"), re.M)


@pytest.mark.slow
def test_gpu_on_a_cpu():
    out = bench("bench/gpu.py --engine=torch --layers=2 --width=64 --tokens=16 --prompts=8 --steps=2 --peak=0.05")
    assert re.search(r"^generation: [\d,]+ tokens a second$", out, re.M) and re.search(r"^neither generation nor update: \d+% of the step$", out, re.M)


@pytest.mark.slow
def test_chaos():
    out = bench("bench/chaos.py --kills=2 --steps=8")
    assert re.search(r"^2 kills \(.*\); (\d) of \1 runs wrote", out, re.M)


@pytest.mark.slow
def test_long_run():
    assert re.search(r"^\| resident MiB, mean \| [\d.]+", bench("bench/long_run.py --steps=80"), re.M)
