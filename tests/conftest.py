import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "CUDA_VISIBLE_DEVICES", ""
)  # claims are about the CPU, also where there is a GPU
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("patient", deadline=None)  # a loaded machine is no failure
hypothesis.settings.load_profile("patient")


def pytest_collection_modifyitems(items):
    """Files with slow tests first, so that quick ones fill the processes up at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def in_project_root(monkeypatch):
    """Tests name worlds/arith and config/ as the README does."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def policy():
    from pretrained import load_policy
    from ranks import Group
    from train import Config

    return load_policy("worlds/arith", Group(Config()))[0]


@pytest.fixture(scope="session")
def engine():
    from engines.torch_engine import TorchEngine

    return TorchEngine("worlds/arith")


@pytest.fixture(scope="session")
def prompts(engine):
    """Token ids of twelve prompts of two lengths."""
    from worlds.problems import arith

    return [engine.tokenizer(p.prompt)["input_ids"] for p in arith("eval")[::27]]
