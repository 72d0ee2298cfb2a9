"""
Milliseconds a step of the difficulty classifier and both adversaries, for steps of 256 to 8,192
prompts.
$ python bench/controllers.py
$ python bench/controllers.py --prompts=256,1024 --known=14116 --repeats=50
"""

import argparse
import os
import sys
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from gdro import DifficultyClassifier, PromptGDRO, RolloutGDRO, prompt_signals


def known_prompts(known, rng):
    """A classifier that has seen `known` prompts a full history's times -> it, uids, success rates.

    The rates go from hopeless to sure."""
    rate = rng.beta(0.3, 0.5, known)
    uids = [f"{i:032x}" for i in range(known)]
    classifier = DifficultyClassifier()
    for _ in range(classifier.history):
        classifier.observe(uids, rng.binomial(4, rate), np.full(known, 4))
    return classifier, uids, rate


def seconds_of_a_step(classifier, prompts, adversary, rollouts, uids, rate, rng):
    """One step's calls, as train.py makes them -> seconds."""
    index = rng.choice(len(uids), prompts, replace=prompts > len(uids))
    uids = [uids[i] for i in index]
    rate = rate[index]
    begun = time.perf_counter()
    bins = classifier.bins(uids)
    success_rate = classifier.success_rate(uids)
    counts = rollouts.allocate(bins, success_rate)
    weights = adversary.weights(bins, success_rate)
    before_generation = time.perf_counter() - begun
    assert counts.sum() == 4 * prompts and weights.min() > 0
    correct = rng.binomial(counts, rate)
    begun = time.perf_counter()
    classifier.observe(uids, correct, counts)
    signals = prompt_signals(correct, counts, classifier.success_rate(uids), np.zeros(prompts),
                             correct / counts)
    adversary.update(bins, signals["error"])
    rollouts.update(bins, counts, signals["error"])
    return before_generation + time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", default="256,1024,8192", help="a step, comma-separated")
    parser.add_argument("--known", type=int, default=14_116, help="prompts seen before")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    classifier, uids, rate = known_prompts(args.known, rng)
    adversary = PromptGDRO()
    print(
        f"10 bins, 2 to 12 rollouts, {args.known:,} known prompts; "
        f"milliseconds a step, median of {args.repeats} (lowest - highest)"
    )
    print("| prompts a step | price | exp3p |\n|---|---|---|")
    for prompts in map(int, args.prompts.split(",")):
        cells = []
        for rule in ("price", "exp3p"):
            player = RolloutGDRO(n_mean=4, n_min=2, n_max=12, rule=rule)
            times = []
            for _ in range(args.repeats + 1):
                step = (classifier, prompts, adversary, player, uids, rate, rng)
                times.append(1000 * seconds_of_a_step(*step))
            times = times[1:]  # the first step warms up caches
            cells.append(f"{np.median(times):.2f} ({min(times):.2f} - {max(times):.2f})")
        print(f"| {prompts:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
