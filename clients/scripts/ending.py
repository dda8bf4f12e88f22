"""What every script prints at its end: its losses, its times, and a digest of all its weights, as one line of JSON.

Losses are written with all their bits (float.hex), so that a reader can compare them exactly; a digest is the SHA-256 of
the bytes of every weight in turn, with dtype and shape.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time

import numpy as np


def steps(default):
    """How often to step: the first argument, if there is one."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else default


class Training:
    """Takes the time and the loss of each step."""

    def __init__(self, cpu=False):
        self.losses = []
        self.seconds = []
        self.clock = time.process_time if cpu else time.perf_counter

    def step(self, function, *arguments):
        self.begin()
        self.note(function(*arguments))

    def begin(self):
        self.start = self.clock()

    def note(self, loss):
        """A step has ended, and the next one begins."""
        self.seconds.append(self.clock() - self.start)
        self.losses.append([float(value) for value in np.ravel(loss)])
        self.begin()

    def finish(self, weights):
        for number in sorted({0, len(self.losses) // 2, len(self.losses) - 1}):
            print("step", number, "loss", *(f"{value:.6g}" for value in self.losses[number]))
        losses = [[value.hex() for value in step] for step in self.losses]
        print(json.dumps({"losses": losses, "seconds": self.seconds, "digest": digest(weights)}))


def digest(weights):
    """
    >>> digest([np.zeros(2)]) == digest([np.zeros(2)]), digest([np.zeros(2)]) == digest([-np.zeros(2)])
    (True, False)
    """
    sha = hashlib.sha256()
    for weight in weights:
        weight = np.asarray(weight)
        sha.update(f"{weight.dtype} {weight.shape}".encode())
        sha.update(weight.tobytes())
    return sha.hexdigest()
