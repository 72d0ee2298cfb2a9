"""Claims about wandb, trackio and TensorBoard, on the real packages (make trackers) and offline:
what they have kept is read back from their own files."""
import glob
import json
import sqlite3
import struct
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from processes import python
from test_train import TINY

from runlog import SAMPLE_COLUMNS
from train import main

SECRET = "my-pass-word"
KNOBS = [*TINY, "--eval_sets=arith", "--eval_every=2", "--eval_samples=2", "--eval_passk=1",
         "--save_every=2", "--samples_every=2", "--samples=3", "--prompt_gdro=true",
         "--rollout_gdro=true", f"--data_dir=https://me:{SECRET}@host/x"]
IMPORT = f"import sys; sys.path.insert(0, {ROOT!r}); import train"
TWO_RUNS = f"""{IMPORT}
train.main([*sys.argv[1:], "--out_dir=out/a", "--steps=2"])
train.main([*sys.argv[1:], "--out_dir=out/b", "--steps=1"])"""
RESUMED_AND_FAILS = f"""{IMPORT}
train.save_hf = None  # what the end of training calls
train.main([*sys.argv[1:], "--out_dir=out/a", "--steps=4", "--resume=auto"])"""


@pytest.fixture(scope="module", params=["wandb", "trackio", "tensorboard"])
def tracked(request, tmp_path_factory):
    """-> (logger, folder): a process made the runs out/a and out/b, another one resumed out/a and
    failed after its last step. The store of trackio is in the folder too."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed: make trackers")
    folder = tmp_path_factory.mktemp(request.param)
    arguments = [*KNOBS, f"--model={ROOT}/worlds/arith", f"--logger={request.param}"]
    for program, status in ((TWO_RUNS, 0), (RESUMED_AND_FAILS, 1)):
        (folder / "program.py").write_text(program)
        done = python("program.py", *arguments, folder=folder, WANDB_MODE="offline",
                      TRACKIO_DIR=f"{folder}/trackio")
        assert done.returncode == status, done.stderr[-3000:]
    assert "'NoneType' object is not callable" in done.stderr
    return request.param, folder


# ---------- what a tracker has kept ----------


def wandb_records(path):
    """The records of a .wandb file. After 7 bytes come blocks of 32 KiB of pieces: checksum, length
    and kind, then so many bytes; a piece of kind 1 is a whole record, one of kind 4 ends one."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = Path(path).read_bytes()
    position, begun, records = 7, b"", []
    while position + 7 <= len(content):
        rest = 32768 - position % 32768
        if rest < 7:  # too short for a piece
            position += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        begun += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            records.append(Record.FromString(begun))
            begun = b""
    return records


def kept_by_wandb(folder, run):
    """-> (names of its tracked runs, their exit codes, (step, metrics) as they were logged)."""
    names, statuses, logged = [], [], []
    for process in sorted(glob.glob(f"{folder}/out/{run}/wandb/offline-run-*")):
        for record in wandb_records(*glob.glob(f"{process}/*.wandb")):
            kind = record.WhichOneof("record_type")
            if kind == "run" and record.run.run_id not in names:
                names.append(record.run.run_id)
            if kind == "exit":
                statuses.append(record.exit.exit_code)
            if kind == "history":
                values = {"/".join(item.nested_key): json.loads(item.value_json)
                          for item in record.history.item}
                if "samples/path" in values:
                    path = Path(process, "files", values["samples/path"])
                    table = json.loads(path.read_text())
                    assert table["columns"] == SAMPLE_COLUMNS
                    values["samples"] = table["data"]
                logged.append((values["_step"], values))
    return names, statuses, logged


def kept_by_trackio(folder, run):
    with sqlite3.connect(f"{folder}/trackio/nanogdro.db") as store:
        rows = store.execute("select run_name, run_id, step, metrics from metrics order by id")
        rows = [row for row in rows if row[0].startswith(f"{run}-")]
    logged = [(step, json.loads(metrics)) for *_, step, metrics in rows]
    for _, values in logged:
        if "samples" in values:
            table = values["samples"]["_value"]
            assert all(list(row) == SAMPLE_COLUMNS for row in table)
            values["samples"] = [list(row.values()) for row in table]
    return sorted({row[:2] for row in rows}), [], logged


def kept_by_tensorboard(folder, run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(f"{folder}/out/{run}").Reload()
    return [run], [], [(event.step, {name: event.value}) for name in events.Tags()["scalars"]
                       for event in events.Scalars(name)]


KEPT_BY = {"wandb": kept_by_wandb, "trackio": kept_by_trackio, "tensorboard": kept_by_tensorboard}


def kept(tracked, run):
    logger, folder = tracked
    return KEPT_BY[logger](folder, run)


def written(folder, run, name):
    with open(folder / "out" / run / name) as file:
        return [json.loads(line) for line in file]


# ---------- claims ----------


def test_metrics_of_every_step_and_evaluation_arrive_with_their_step(tracked):
    for run, steps in (("a", 4), ("b", 1)):
        wanted = {}
        for record in written(tracked[1], run, "metrics.jsonl"):
            step = record.pop("step")
            wanted |= {(step, name): value for name, value in record.items()
                       if not isinstance(value, list) and not name.startswith("mem/")}
        assert {step for step, _ in wanted} == set(range(steps))
        for record in written(tracked[1], run, "eval.jsonl"):
            wanted[record["step"], "eval/arith/mean@2"] = record["mean@2"]
        arrived = {(step, name): value for step, values in kept(tracked, run)[2]
                   for name, value in values.items()}
        assert arrived.keys() >= wanted.keys()
        for key, value in wanted.items():  # TensorBoard keeps 32 bits
            assert arrived[key] == pytest.approx(value, rel=1e-6), key


def test_rollouts_arrive_as_a_table_where_there_are_tables(tracked):
    wanted = {}
    for record in written(tracked[1], "a", "samples.jsonl"):
        wanted.setdefault(record["step"], []).append([record[name] for name in SAMPLE_COLUMNS])
    assert list(wanted) == [0, 2] and all(len(rows) == 3 for rows in wanted.values())
    tables = {step: values["samples"] for step, values in kept(tracked, "a")[2]
              if "samples" in values}
    assert tables == ({} if tracked[0] == "tensorboard" else wanted)


def test_a_resumed_run_goes_on_in_its_tracked_run_and_another_run_has_its_own(tracked):
    ([a], statuses, _), ([b], *_) = kept(tracked, "a"), kept(tracked, "b")
    assert a != b
    if tracked[0] == "wandb":  # it also keeps how each part ended
        assert statuses == [0, 1]


def test_secrets_in_knobs_reach_no_tracker(tracked):
    files = [path.read_bytes() for path in tracked[1].rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in content for content in files)
    if tracked[0] != "tensorboard":  # it gets no knobs
        kept_here = "out/a/wandb/*/*.wandb" if tracked[0] == "wandb" else "trackio/*.db"
        [content, *_] = [path.read_bytes() for path in tracked[1].glob(kept_here)]
        assert b"https://***@host/x" in content


def test_a_run_that_ended_has_closed_its_file(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: make trackers")
    main([*TINY, "--steps=1", "--logger=tensorboard", f"--out_dir={tmp_path}/out/a"])
    assert {step for step, _ in kept_by_tensorboard(tmp_path, "a")[2]} == {0}
    # its writer is a thread of its own, which ends with what it had to write
    modules = [type(thread).__module__ for thread in threading.enumerate()]
    assert not [module for module in modules if module.startswith("tensorboard")]


@pytest.mark.parametrize("logger", ["wandb", "trackio", "tensorboard"])
def test_a_missing_package_is_said_before_the_run_folder_is_made(tmp_path, capsys, monkeypatch,
                                                                 logger):
    monkeypatch.setitem(sys.modules, logger, None)  # whether or not it is installed
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(SystemExit) as stop:
        main([*TINY, "--steps=1", f"--logger={logger}", f"--out_dir={tmp_path}/run"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and f"pip install {logger}, or --logger=none" in error
    assert not (tmp_path / "run").exists()
