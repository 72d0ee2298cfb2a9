"""The pages are true: their commands parse, their paths exist, their snippets run, their tables are
what the commands print, their facts hold."""
import ast
import dataclasses
import glob
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter

import numpy as np
import pytest
import torch
from grading_cases import CASES
from processes import python
from transformers import Qwen3ForCausalLM

import data
import plot
from bench import arms
from configurator import UsageError, parse, read_config
from data import HUB
from eval import EvalConfig
from eval import main as evaluation
from pretrained import size_of
from reward import Grader
from train import Config, main
from worlds.problems import ARITH

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


PAGES = {os.path.relpath(path, ROOT): read(path)
         for path in (f"{ROOT}/README.md", f"{ROOT}/CONTRIBUTING.md",
                      *glob.glob(f"{ROOT}/docs/*.md"))}
COMMAND = r"(?:^|`)((?:python|torchrun --nproc_per_node=8) [\w/]+\.py[^`\n#]*)"
COMMANDS = sorted({(page, command.strip()) for page, text in PAGES.items()
                   for command in re.findall(COMMAND, text, re.M)})
CONFIGS = {"train.py": Config, "eval.py": EvalConfig}
KNOBS = {field.name for config in CONFIGS.values() for field in dataclasses.fields(config)}


def words(page):
    """A page's text with every run of spaces and line ends as one space."""
    return " ".join(PAGES[page].split())


def records(folder, name):
    with open(os.path.join(folder, name)) as file:
        return [json.loads(line) for line in file]


def snippets(page):
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.S)


def printed(*command):
    """What a script of this project prints."""
    done = python(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


REPORTED = ["chains", "orders", "steps"]


def results_of(name):
    return json.loads(read(f"bench/results/{name}.json"))["results"]


# ---------- commands, paths, names ----------

@pytest.mark.parametrize("page, command", COMMANDS)
def test_commands_name_real_scripts_configs_and_knobs(page, command):
    script, *arguments = shlex.split(command.replace(" --nproc_per_node=8", ""))[1:]
    assert os.path.exists(script)
    if script == "bench/arms.py":
        pairs = [argument[2:].partition("=") for argument in arguments]
        options = {key: value for key, _, value in pairs}
        named = options.get("arms", "grpo").split(",")
        assert {arms.split_name(arm)[0] for arm in named} <= set(arms.ARMS)
        assert options.get("world", "arith") in arms.WORLDS
        own = {"arms", "ablations", "world", "seeds", "json", "read", "against", "dev", "quick",
               "tune", "tuned", "tune_lr", "tune_updates", "finalists"}
        arguments = [f"--{key}={value}" for key, value in options.items() if key not in own]
    if script in (*CONFIGS, "bench/arms.py") and arguments != ["--help"]:
        parse(CONFIGS.get(script, Config), arguments)


def test_there_are_commands_and_two_of_the_readme_are_make():
    assert len(COMMANDS) > 30
    assert re.findall(r"^make (\S+)", PAGES["README.md"], re.M) == ["demo", "test"]
    makefile = read("Makefile")
    assert all(f"\n{target}: .venv/installed" in makefile for target in ("demo", "test"))
    for page in PAGES.values():
        for target in re.findall(r"`make (?:PYTHON=\S+ )?([\w-]+)`", page):
            assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("page", PAGES)
def test_paths_links_and_images_exist(page):
    of_a_run = {"ckpt/", "hf/", "best/", "time/", "mem/", "mine.py"}  # made by it, or by a reader
    folder = os.path.dirname(page)
    for path in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        assert os.path.exists(os.path.join(folder, path)), path
    named = re.findall(r"`((?:\w+/)*(?:\w+\.(?:py|json|md)|\w+/))`", PAGES[page])
    for path in set(named) - of_a_run - {"config.json"}:
        assert os.path.exists(path), path


@pytest.mark.parametrize("page", PAGES)
def test_settings_named_in_a_page_are_knobs(page):
    """Written as `knob=value` or `--knob=value`."""
    # of arms.py, torchrun and vLLM
    of_others = {"ablations", "against", "seeds", "rdzv_backend", "tensor_parallel_size"}
    for knob in re.findall(r"`(?:--)?([a-z_]+)=[^`]*`", PAGES[page]):
        assert knob in KNOBS | of_others, knob


def test_the_eight_steps_are_the_banners():
    banners = re.findall(r"# -{5,} (\d) ([\w, ]+?)(?::.*)? -+$", read("train.py"), re.M)
    steps = re.findall(r"^(\d)\. \*\*([\w, ]+)\*\*", PAGES["README.md"], re.M)
    assert banners == steps and len(steps) == 8
    of_one_step = ", ".join(re.findall(r"^## (\d.*)", PAGES["docs/one_step.md"], re.M))
    assert of_one_step == ", ".join(f"{number} {name}" for number, name in steps)


def test_what_the_readme_says_to_edit_is_there():
    table = PAGES["README.md"].split("| to change | edit |")[1].split("\n\n")[0]
    rows = re.findall(r"((?:`\w+`(?:, )?)+) in `([\w/]+\.py)`", table)
    assert len(rows) >= 5
    for names, path in rows:
        defined = set()
        for node in ast.parse(read(path)).body:
            targets = getattr(node, "targets", [])
            defined |= {getattr(node, "name", None), *(getattr(t, "id", None) for t in targets)}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, path


def test_every_measurement_is_named_in_a_page():
    for path in set(glob.glob("bench/*.py")) - {"bench/common.py", "bench/gpu_child.py"}:
        assert any(path in page for page in PAGES.values()), path


def test_the_readme_is_short_and_counts_lines():
    readme = PAGES["README.md"]
    assert len(readme.splitlines()) <= 150 and len(readme.encode()) <= 12_000
    counts = re.findall(r"`([\w/]+\.py)`\s\((\d+)\)", readme)
    flat = {path for path in os.listdir(ROOT) if path.endswith(".py")}
    assert flat <= {path for path, _ in counts}
    for path, count in counts:
        lines = len(read(path).splitlines())
        assert abs(lines - int(count)) <= 0.1 * lines, f"{path} has {lines} lines"


# ---------- tables that commands print ----------

def test_the_table_of_the_papers_settings_states_the_defaults_and_what_each_file_sets():
    paper = read_config(Config, "config/paper.py")
    reference = read_config(Config, "config/reference.py")
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    row = r"^\| `(\w+)` \| `([\w.]+)` \| `([\w.]+)` \| `([\w.]+)` \|"
    rows = re.findall(row, PAGES["docs/method.md"], re.M)
    assert {name for name, *_ in rows} == set(paper) == set(reference)
    for name, *values in rows:
        sets = (defaults[name], paper[name], reference[name])
        assert values == [str(value) for value in sets]


def test_the_table_of_memory_is_what_the_command_prints():
    """The four configs of a size have one line in the page; cells are compared without slashes
    between columns, which the command does not print."""
    lines = printed("bench/budget.py").splitlines()
    rows = re.findall(r"^\| `(qwen3_\w+)_\*\.py` \| (.*) \|$", PAGES["docs/paper.md"], re.M)
    assert len(rows) == 3
    for name, row in rows:
        cells = row.split(" | ")
        hours, fits, with_small_cache = cells[4:]
        fits = f"{fits} {with_small_cache}".replace("/", "")
        in_page = " ".join([*cells[:5], fits]).split()
        of_size = [line.split(None, 1)[1] for line in lines if line.startswith(name + "_")]
        assert len(of_size) == 4 and all(line.split() == in_page for line in of_size)
        for path in glob.glob(f"config/{name}_*.py"):
            assert f"some {hours} hours" in read(path).splitlines()[0]


def test_the_table_of_scaling_is_what_the_command_prints():
    assert printed("bench/budget.py", "--scaling") in PAGES["docs/scaling.md"]


def test_the_table_of_the_tracked_update_is_made_of_the_kept_result():
    assert printed("bench/budget.py", "--read=bench/results/memory.json") in PAGES["docs/paper.md"]


def test_the_tables_of_one_gpu_are_what_the_commands_print():
    page = PAGES["docs/one_gpu.md"]
    table = printed("bench/budget.py", "--one_gpu")
    assert table in page
    assert printed("bench/budget.py", "--read=bench/results/one_gpu_memory.json") in page
    rows = dict(re.findall(r"^\| `(\S+\.py)` .* \| (.*) \|$", table, re.M))
    assert sorted(rows) == sorted(glob.glob("config/one_gpu_*.py"))
    for name, hours in rows.items():
        short, long = hours.split(" / ")  # GSM8K's responses are short
        hours = long if "lora" in name else short
        assert f"one GPU of 24 GB, some {hours} hours" in read(name).splitlines()[0]
        left = re.search(rf"`{name}` .* \| ([\d.]+) GiB \|", table)[1]
        assert float(left) >= 0
    assert f"some {rows['config/one_gpu_gdro.py'].split(' / ')[0]} hours by" in PAGES["README.md"]


def test_make_gpu_says_where_there_is_none_and_installs_nothing(tmp_path):
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(file, tmp_path)
    done = subprocess.run(["make", "gpu"], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PATH": "/usr/bin:/bin"})
    assert done.returncode != 0 and "nvidia-smi finds no GPU" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["Makefile", "pyproject.toml"]
    recipe = read("Makefile").split("\ngpu:")[1].split("\n\n")[0]
    assert "'.[gpu]'" in recipe and "bench/gpu.py --quick" in recipe
    with open("pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert extras["gpu"] == ["vllm==0.30.0"]


def test_the_report_is_the_kept_one():
    page = PAGES["docs/results.md"]
    commands = re.findall(r"`python (bench/arms\.py --read=[^`]*)`:\n", page)
    for command in commands:
        assert f"`python {command}`:\n\n{printed(*shlex.split(command))}" in page
    for world in (*REPORTED, "chains_wide"):
        assert f"bench/arms.py --read=bench/results/{world}.json" in commands
        # beside what the memory alone gains, and beside the best of the rivals
        against = [command for command in commands if f"/{world}.json --against=" in command]
        assert len(against) == (2 if world in REPORTED else 0)
    assert {len(runs) for world in REPORTED for runs in results_of(world).values()} == {10}


def commands_of(target, monkeypatch):
    """What the commands of a target of the Makefile ask bench/arms.py for -> (arguments, arms)."""
    listed = subprocess.run(["make", "-n", target], capture_output=True, text=True, check=True)
    for command in re.findall(r"bench/arms\.py (.*)", listed.stdout.replace("\\\n", " ")):
        monkeypatch.setattr(sys, "argv", ["arms.py", *shlex.split(command)])
        args, named, extra = arms.parse_arguments()
        assert not extra
        yield args, named


def test_the_wider_policy_has_the_settings_of_the_small_one_and_grpos_rate(monkeypatch):
    wide, small = results_of("chains_wide"), results_of("chains")
    monkeypatch.setattr(arms, "base_of", lambda world: "train.py")  # the target makes the policy
    commands = list(commands_of("report-wide", monkeypatch))
    assert {arm for _, named in commands for arm in named} == set(wide)
    assert {args.json for args, _ in commands} == {"bench/results/chains_wide.json"}
    of_all = {arm for arm in wide if ":lr=2e-4:updates_per_step=2" in arm}
    high = "grpo:lr=4e-4:updates_per_step=2:kl_coef=0"  # GRPO where the others collapse
    assert set(wide) - of_all - {high} < set(small)
    assert high in wide and len(of_all) == 5 == len(wide) - len(of_all)
    assert {len(by_seed) for by_seed in wide.values()} == {4}


@pytest.mark.parametrize("world", REPORTED)
def test_every_arm_of_the_report_was_tuned_alike_and_runs_at_its_best(world, monkeypatch):
    with open(f"bench/results/tuning/{world}.json") as file:
        tuning = json.load(file)
    (tune, variants), (final, named) = commands_of(f"report-{world}", monkeypatch)
    assert tune.json == final.tuned == file.name and final.json == f"bench/results/{world}.json"
    assert set(variants) == set(tuning["results"])
    rates, updates = tune.tune_lr.split(","), tune.tune_updates.split(",")
    finalists, tuning_seeds = tune.finalists, tune.seeds
    if world != "steps":  # of which the page says that it had fewer
        assert (rates, updates) == (list(arms.LR), list(arms.UPDATES))
        assert (finalists, tuning_seeds) == (3, 3)
    best = arms.chosen(tuning["results"])
    report = results_of(world)
    assert set(report) == set(best.values()) == set(named)
    seeds = {seed for by_seed in report.values() for seed in by_seed}
    for name in best:
        tried = {arm: runs for arm, runs in tuning["results"].items()
                 if arms.untuned(arm) == name}
        assert set(tried) == set(arms.variants(name, rates, updates))
        often = finalists * (3 if name == "grpo" else 1)  # as it has three times the settings
        on_most = sorted(len(runs) for runs in tried.values())[-often:]
        assert on_most == [tuning_seeds] * often
        assert not seeds & {seed for runs in tried.values() for seed in runs}
    assert tuning["prompts"] == arms.DEVELOPMENT["prompts"]


def test_the_tables_of_the_regimes_are_the_kept_ones():
    page = PAGES["docs/regimes.md"]
    for name in ("regimes", "regimes_paper", "regimes_check"):
        command = f"bench/regimes.py --read=bench/results/{name}.json"
        table = printed(*command.split()).split(":\n\n")[-1]  # without the name of the setting
        assert f"`python {command}`" in page and table in page


def test_the_example_of_an_ablation_is_the_kept_one():
    table = printed("bench/arms.py", "--read=bench/results/right_only.json")
    assert table in PAGES["docs/ablations.md"]


def test_every_gain_with_an_interval_is_in_a_table_of_the_report():
    """Those that are not over GRPO are written without the signs, and not looked for."""
    tables = "\n".join(line for line in PAGES["docs/results.md"].splitlines() if "25,600 " in line)
    claimed = {page: re.findall(r"([+-][\d.]+) % (\[[+-][\d.]+, [+-][\d.]+\])", words(page))
               for page in PAGES}
    assert len(claimed["docs/results.md"]) >= 12
    for page, gains in claimed.items():
        for gain, interval in gains:
            assert f"| {gain} {interval} " in tables, (page, gain, interval)


def test_the_results_in_the_readme_are_the_kept_ones():
    names = {"GRPO": "grpo", "memory": "grpo_memory", "memory, Prompt-GDRO": "prompt_gdro",
             "memory, Rollout-GDRO": "rollout_gdro", "memory, both": "both",
             "memory, MaxRL": "maxrl:group_memory=32"}
    chains, orders, steps = [
        {arms.untuned(variant): runs for variant, runs in results_of(world).items()}
        for world in REPORTED]

    def means(runs):
        if not runs:
            return "not run"
        values = [np.mean([run[metric] for run in runs.values()])
                  for metric in ("mean@8", "pass@8", "tail")]
        return " / ".join(f"{value:.3f}".removeprefix("0") for value in values)

    for i, (name, arm) in enumerate(names.items()):
        gains = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*arms.gain(chains, arm, against, "mean@8"))
                 for against in ("grpo", "grpo_memory")[:i]]  # the first two rows are those
        cells = [name, means(chains[arm]), *gains, *[""] * (2 - len(gains)), means(orders[arm]),
                 means(steps.get(arm))]
        row = "| " + " | ".join(cells).replace("  ", " ") + " |"
        assert row in PAGES["README.md"], row


def test_every_arm_is_explained():
    table = PAGES["docs/results.md"].split("| arm | what it is |")[1].split("\n\n")[0]
    explained = set(re.findall(r"`(\w+)`", table))
    assert set(arms.ARMS) <= explained


def test_every_metric_is_explained(tmp_path):
    table = PAGES["docs/running.md"].split("| metric | meaning |")[1].split("\n\n")[0]
    main(["--steps=1", "--eval_sets=", "--prompts_per_step=4", f"--out_dir={tmp_path}/run"])
    logged = set(json.loads((tmp_path / "run" / "metrics.jsonl").read_text()))
    assert set(re.findall(r"`([\w/]+)`", table)) - {"price", "exp3p"} == logged


def test_the_table_of_grading_is_of_the_cases_there_are():
    page, _ = PAGES["docs/data_and_grading.md"].split("fresh_grading_cases.py", 1)
    rows = re.findall(r"^\| ([^|]+) \| [\d.]+% of (\d+) .* of (\d+) \|$", page, re.M)
    counts = Counter((style, is_right) for style, _, _, is_right, _ in CASES)
    for style, wrong, right in rows[:-1]:
        assert (int(wrong), int(right)) == (counts.pop((style, False)), counts.pop((style, True)))
    assert not counts
    assert rows[-1][0] == "all" and sum(map(int, rows[-1][1:])) == len(CASES)


@pytest.mark.slow
def test_the_table_of_grading_is_what_the_command_prints():
    page = PAGES["docs/data_and_grading.md"]
    # math-verify takes all of its time over a few hostile answers, and then refuses
    assert printed("bench/grading.py", "--cases", "--patience=3") in page
    fresh = printed("bench/grading.py", "--cases", "--file=tests/fresh_grading_cases.py")
    table = [line for line in fresh.splitlines() if line.startswith("|")]
    assert "\n".join(table) in page
    wrong, wrong_of_math_verify, refused, refused_of_math_verify = [
        float(rate) for rate in re.findall(r"([\d.]+)% of", table[-1])]
    assert wrong <= 3 < wrong_of_math_verify and refused <= 10 < refused_of_math_verify


@pytest.mark.slow
def test_the_step_in_numbers_is_what_the_command_prints():
    """On another processor rounding differs, and a single sample may too: then write it again."""
    assert printed("bench/one_step.py") == PAGES["docs/one_step.md"]


# ---------- facts ----------

def test_the_table_of_data_sets_names_them_all():
    page = PAGES["docs/data_and_grading.md"]
    for name, known in HUB.items():
        assert f"`{name}`" in page and known.hub in page
        assert not known.config or f"`{known.config}`" in page


def test_facts_about_the_embedded_world():
    smallest = size_of("worlds/arith")[0]
    size = f"{smallest:,} parameters"
    world = words("docs/data_and_grading.md")
    assert size in world
    shape = size_of("worlds/chains")[1]
    for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
        setattr(shape, name, 2 * getattr(shape, name))  # as worlds/make_base.py chains_wide
    with torch.device("meta"):
        largest = sum(p.numel() for p in Qwen3ForCausalLM(shape).parameters())
    assert f"with one of {largest:,} too" in words("docs/results.md")
    sizes = f"policies of {smallest / 1e6:.1f} to {largest / 1e6:.1f} million parameters"
    assert sizes in words("README.md")
    rates = json.loads(read("worlds/arith/success_rates.json"))["success_rates"]
    assert f"from {rates['A']:.2f} (A) down to {rates['H']:.3f} (H)" in world
    first, last = (ARITH.families[i].share for i in (0, -1))
    assert f"(A {first:.0%}, H {last:.0%})".replace("%", " %") in world
    cfg = Config()
    rollouts = f"{cfg.steps * cfg.prompts_per_step * cfg.n_rollouts:,} rollouts"
    assert f"the same {rollouts}" in words("docs/results.md")
    assert f"after {rollouts}" in words("README.md")


def test_the_adversaries_run_alone_as_written(tmp_path):
    """In a folder with a copy of gdro.py and nothing else, without torch. The hard prompt ends with
    the most rollouts and weight."""
    snippet, = snippets("docs/embed.md")
    shutil.copy("gdro.py", tmp_path)
    (tmp_path / "loop.py").write_text(snippet)
    start = "import sys; sys.modules['torch'] = None; exec(open('loop.py').read())"
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = dict(re.findall(r"'(\w+)': (\d+)", done.stdout))
    weights = re.search(r"\[ *([\d.]+) +([\d.]+) +([\d.]+) *\]", done.stdout).groups()
    easy, fair, hard = map(float, weights)
    assert int(counts["hard"]) > int(counts["easy"]) and hard > easy
    assert sum(map(int, counts.values())) == 12


def test_reward_and_loader_run_as_written_and_learn(tmp_path):
    grader, = snippets("README.md")
    loader, *scores = snippets("docs/data_and_grading.md")
    for snippet in (grader, loader, *scores):
        assert len([line for line in snippet.splitlines() if line.strip()]) <= 10
    (tmp_path / "mine.py").write_text(grader)
    try:
        exec(loader, vars(data))
        main([f"--reward={tmp_path}/mine.py:last_number", "--dataset=sums", "--eval_sets=sums",
              "--steps=20", f"--out_dir={tmp_path}/run"])
    finally:
        data.DATASETS.pop("sums", None)
    lines = (tmp_path / "run" / "eval.jsonl").read_text().splitlines()
    first, last = map(json.loads, lines)
    assert list(first["groups"]) == ["0", "4", "8"]
    assert last["mean@8"] > first["mean@8/interval"][1]


@pytest.mark.slow
def test_partial_scores_train_the_embedded_world(tmp_path, capsys):
    """The score rises and with it the rate of solved responses; evaluation, comparison and figures
    show both; it resumes to the same lines."""
    digits = snippets("docs/data_and_grading.md")[1]
    (tmp_path / "mine.py").write_text(digits)
    knobs = [f"--reward={tmp_path}/mine.py:digits", "--prompt_signal=score", "--eval_every=12",
             "--save_every=12", "--lr=2e-4", "--device=cpu", "config/arith_gdro.py"]
    main([*knobs, "--steps=24", f"--out_dir={tmp_path}/run"])
    first, _, last = records(tmp_path / "run", "eval.jsonl")
    assert last["mean@8"] > first["mean@8/interval"][1]
    assert last["score"] > first["score/interval"][1] and last["score"] > last["mean@8"]
    assert last["scores"] != last["right"]
    metrics = records(tmp_path / "run", "metrics.jsonl")
    assert all(m["score/prompt_mean"] > m["solved/prompt_mean"] for m in metrics)
    assert all(m["verdict/partial"] > 0 for m in metrics)
    main([*knobs, "--steps=24", f"--out_dir={tmp_path}/two", f"--resume={tmp_path}/run/ckpt/"
          "step_000012"])
    again = records(tmp_path / "two", "metrics.jsonl")
    machine = ("time/", "mem/")
    for one, other in zip(metrics[12:], again, strict=True):
        assert [v for k, v in one.items() if not k.startswith(machine)] == [
            v for k, v in other.items() if not k.startswith(machine)]
    capsys.readouterr()
    for model in ("worlds/arith", f"{tmp_path}/run/hf"):
        evaluation([f"--model={model}", knobs[0], f"--output={tmp_path}/{len(model)}.json"])
    assert re.search(r"^score +0\.\d+ \[", capsys.readouterr().out, re.M)
    evaluation([f"--compare={tmp_path}/12.json,{tmp_path}/{len(model)}.json"])
    gain = re.search(r"score difference +\+(0\.\d+) \[\+0", capsys.readouterr().out)
    assert float(gain[1]) == pytest.approx(last["score"] - first["score"], abs=0.02)
    curves = plot.draw_evaluations(plot.pyplot(), [tmp_path / "run"])["learning_curves"]
    assert [axis.get_ylabel() for axis in curves.axes][:3] == ["mean@8", "pass@8", "score"]


class Judge(http.server.BaseHTTPRequestHandler):
    """Scores 1 for a right response, after a while; `broken` fails once, `hangs` never answers."""
    seen = []

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        again = asked["response"] in self.seen
        self.seen.append(asked["response"])
        if asked["response"] == "hangs":
            time.sleep(30)
        if asked["response"] == "broken" and not again:
            return self.send_error(500)
        time.sleep(0.2)
        score = 0.5 if asked["response"] == "broken" else asked["response"] == asked["answer"]
        body = json.dumps({"score": float(score)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


def test_a_judge_behind_a_server_may_be_slow_fail_and_hang(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judged = snippets("docs/data_and_grading.md")[2]
    judged = judged.replace("localhost:8000", f"127.0.0.1:{server.server_port}")
    (tmp_path / "mine.py").write_text(judged)
    grader = Grader(f"{tmp_path}/mine.py:judged", workers=8, timeout=5.0)
    try:
        grader.canary("42")
        responses = ["hangs", "broken", *map(str, range(38)), "hangs"]
        begin = time.monotonic()
        grades = grader.grade(responses, ["7"] * len(responses))
        seconds = time.monotonic() - begin
        assert [g.verdict for g in grades] == ["timeout", "partial"] + [
            "right" if i == 7 else "wrong" for i in range(38)] + ["timeout"]
        assert grades[1].score == 0.5
        assert seconds < 0.2 * 38 + 2 * 5.0, "eight workers wait for eight answers at a time"
        # the two that hung were replaced, and nothing of the server reaches the next answers
        assert grader.grade(["7"] * 16, ["7"] * 16) == [("right", 1.0)] * 16
    finally:
        grader.close()
        server.shutdown()
        server.server_close()
    # a server that is not there is a timeout each, said by the canary before the first step
    gone = Grader(f"{tmp_path}/mine.py:judged", workers=1, timeout=1.5)
    with pytest.raises(UsageError, match="scored timeout"):
        gone.canary("42")
    gone.close()


def test_the_figures_can_be_drawn_again(tmp_path):
    listed = subprocess.run(["make", "-n", "figures"], capture_output=True, text=True, check=True)
    commands = re.findall(r"^\.venv/bin/python (\S+\.py .*)$", listed.stdout, re.M)
    kept = shutil.ignore_patterns("*.png")
    shutil.copytree("bench/results", tmp_path / "bench" / "results", ignore=kept)
    for command in commands:
        script, *arguments = command.split()
        done = python(os.path.abspath(script), *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    shown = {path for page in PAGES.values()
             for path in re.findall(r"\]\((?:\.\./)?(bench/results/[^)]+\.png)\)", page)}
    assert len(shown) == len(commands) + 1 == 10  # plot.py draws two of them
    assert all(os.path.getsize(tmp_path / path) > 10_000 for path in shown)
