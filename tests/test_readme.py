"""The README is true: its commands parse, its paths exist, its snippets run, its facts hold."""
import dataclasses
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import data
from configurator import parse
from data import HUB
from eval import EvalConfig
from model import load_policy
from ranks import Group
from train import PRESETS, Config, main
from worlds.problems import ARITH

with open(os.path.join(os.path.dirname(__file__), "..", "README.md"), encoding="utf-8") as file:
    README = file.read()
COMMANDS = sorted(set(re.findall(r"^(?:\| `)?((?:python|torchrun --nproc_per_node=8) [\w/]+\.py[^`\n#]*)", README, re.M)))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_real_scripts_configs_and_knobs(command):
    script, *arguments = shlex.split(command.replace(" --nproc_per_node=8", ""))[1:]
    assert os.path.exists(script)
    if script in ("train.py", "eval.py") and arguments != ["--help"]:
        parse({"train.py": Config, "eval.py": EvalConfig}[script], arguments)


def test_there_are_commands_and_two_of_them_are_make():
    assert len(COMMANDS) > 5
    with open("Makefile") as file:
        makefile = file.read()
    assert re.findall(r"^make (\S+)", README, re.M) == ["demo", "test"] and "\nvllm-cpu:" in makefile
    assert all(f"\n{target}: .venv/installed" in makefile for target in ("demo", "test"))


def test_paths_and_images_exist():
    for path in re.findall(r"\]\((?!https?:)([^)]+)\)", README) + re.findall(r"`(\w+\.py|\w+/(?:\w+/)?(?:\w+\.py)?)`", README):
        assert os.path.exists(path) or os.path.exists("bench/" + path) or os.path.exists("config/" + path) or path in ("ckpt/", "hf/", "best/", "time/", "mem/", "mine.py"), path


def test_the_eight_steps_are_the_banners():
    with open("train.py") as file:
        banners = re.findall(r"# -{5,} (\d) ([\w, ]+?)(?::.*)? -{5,}", file.read())
    steps = re.findall(r"^(\d)\. \*\*([\w, ]+)\*\*", README, re.M)
    assert banners == steps and len(steps) == 8


def test_the_table_of_presets_states_the_defaults_and_what_each_sets():
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \| `([\w.]+)` \| `([\w.]+)` \|", README, re.M)
    assert {row[0] for row in rows} == set(PRESETS["paper"]) == set(PRESETS["reference"])
    for name, *values in rows:
        assert values == [str(value) for value in (defaults[name], PRESETS["paper"][name], PRESETS["reference"][name])]


def printed(*options):
    """What bench/budget.py prints."""
    command = [sys.executable, "bench/budget.py", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_table_of_memory_is_what_the_command_prints():
    lines = printed().splitlines()
    rows = re.findall(r"^\| `(qwen3_\w+)_\*\.py` \| (.*) \|$", README, re.M)
    assert len(rows) == 3
    for name, row in rows:
        cells = row.split(" | ")
        hours, fits, with_small_cache = cells[4:]
        of_size = [line.split(None, 1)[1] for line in lines if line.startswith(name + "_")]
        fits = f"{fits} {with_small_cache}".replace("/", "")  # the command has a column for each
        in_readme = " ".join([*cells[:5], fits]).split()
        assert len(of_size) == 4 and all(line.split() == in_readme for line in of_size)
        for path in glob.glob(f"config/{name}_*.py"):
            with open(path) as file:
                assert f"some {hours} hours" in file.readline()


def test_the_table_of_scaling_is_what_the_command_prints():
    with open("docs/scaling.md") as file:
        assert printed("--scaling") in file.read()


def test_the_table_of_the_tracked_update_is_made_of_the_kept_result():
    assert printed("--read=bench/results/memory.json") in README


def test_the_table_of_data_sets_names_them_all():
    for name, known in HUB.items():
        assert f"`{name}`" in README and known.hub in README and (not known.config or f"`{known.config}`" in README)


def test_facts_about_the_embedded_world():
    assert f"{sum(p.numel() for p in load_policy('worlds/arith', Group(Config()))[0].parameters()):,} parameters" in README
    with open("worlds/arith/success_rates.json") as file:
        rates = json.load(file)["success_rates"]
    assert f"from {rates['A']:.2f} (A) down to {rates['H']:.3f} (H)" in README
    assert f"(A {ARITH.families[0].share:.0%}, H {ARITH.families[-1].share:.0%})".replace("%", " %") in README
    cfg = Config()
    assert f"the same {cfg.steps * cfg.prompts_per_step * cfg.n_rollouts:,} rollouts" in README


def test_the_adversaries_run_alone_as_written(tmp_path):
    """In a folder with a copy of gdro.py and nothing else; the hard prompt ends with the most rollouts and weight."""
    snippet = re.findall(r"```python\n(.*?)```", README, re.S)[2]
    shutil.copy("gdro.py", tmp_path)
    (tmp_path / "loop.py").write_text(snippet)
    done = subprocess.run([sys.executable, "-c", "import sys; sys.modules['torch'] = None; exec(open('loop.py').read())"], capture_output=True, text=True, cwd=tmp_path)
    counts = dict(re.findall(r"'(\w+)': (\d+)", done.stdout))
    easy, fair, hard = map(float, re.search(r"\[ *([\d.]+) +([\d.]+) +([\d.]+)\]", done.stdout).groups())
    assert int(counts["hard"]) > int(counts["easy"]) and sum(map(int, counts.values())) == 12 and hard > easy, done.stderr


def test_both_snippets_run_as_written_and_learn(tmp_path):
    grader, loader, _ = re.findall(r"```python\n(.*?)```", README, re.S)
    (tmp_path / "mine.py").write_text(grader)
    assert all(len([line for line in snippet.splitlines() if line.strip()]) <= 10 for snippet in (grader, loader))
    try:
        exec(loader, vars(data))
        main([f"--reward={tmp_path}/mine.py:last_number", "--dataset=sums", "--eval_sets=sums", "--steps=20", f"--out_dir={tmp_path}/run"])
    finally:
        data.DATASETS.pop("sums", None)
    with open(tmp_path / "run" / "eval.jsonl") as file:
        first, last = [json.loads(line) for line in file]
    assert list(first["groups"]) == ["0", "4", "8"] and last["mean@8"] > first["mean@8/interval"][1]


@pytest.mark.parametrize("world", ["arith", "letters"])
def test_the_report_is_the_kept_one(world):
    """The table is what the command prints, and every gain with an interval in the text is in one of the tables."""
    table = subprocess.run([sys.executable, "bench/arms.py", f"--read=bench/results/{world}.json"], capture_output=True, text=True, check=True).stdout
    assert table in README and len(table.splitlines()) == 2 + 22 and all(" 8 " in line for line in table.splitlines()[2:])
    tables = README.split("<!-- arith -->")[1].split("## The algorithm")[0]
    text = README.split("## What was found")[1].split("<!-- arith -->")[0]
    gains = re.findall(r"([+-][\d.]+) % (\[[+-][\d.]+, [+-][\d.]+\])", text)
    assert len(gains) >= 6 and all(f"{gain} {interval}" in tables for gain, interval in gains)


def test_the_figures_can_be_drawn_again(tmp_path):
    with open("Makefile") as file:
        commands = re.findall(r"^\t\$\(PY\) (plot\.py bench/results.*|bench/figures\.py .*)$", file.read(), re.M)
    shutil.copytree("bench/results", tmp_path / "bench" / "results", ignore=shutil.ignore_patterns("*.png"))
    for command in commands:
        script, *arguments = command.split()
        subprocess.run([sys.executable, os.path.abspath(script), *arguments], cwd=tmp_path, check=True, capture_output=True)
    drawn = [path for path in re.findall(r"\]\((bench/results/[^)]+\.png)\)", README)]
    assert len(drawn) == 5 and all(os.path.getsize(tmp_path / path) > 10_000 for path in drawn)
