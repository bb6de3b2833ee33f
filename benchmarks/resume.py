"""Does a training that was killed end as if nothing had happened? Kills 20 and compares their final weights.

python benchmarks/resume.py [--kills 20]        about two minutes

The training: a LoRA with dropout on the pocket UNet, pictures of a subject beside pictures of another, prompts
dropped, an average of the weights, a checkpoint after every step. Each process is killed (SIGKILL) at a random
moment: in a step, or while a checkpoint is being written. A new process goes on from what lies in the folder.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time

import torch
from tqdm.auto import tqdm

from tutorial_lib import baselines, models, training
from tutorial_lib.pocket.subjects import SUBJECTS
from tutorial_lib.pocket.world import draw

STEPS = 8
# What takes seconds to import is imported once, in the process that all others are forked from.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
for module in ("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "diffusers.training_utils", "peft"):
    importlib.import_module(module)
PROCESSES = multiprocessing.get_context("forkserver")


def train(folder: str, say) -> None:
    """In a process of its own: trains, or goes on; says each step, at the end the fingerprint of the weights."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # a lock among processes would outlive the kill
    pipe = models.load("pocket", device="cpu")
    data, prior = (
        training.encode(pipe, [draw(scene) for scene in s.scenes], [s.caption(k) for k in range(len(s.scenes))])
        for s in (SUBJECTS["two-tone-cat"], SUBJECTS["heart-mug"])
    )
    task = baselines.lora(pipe, data, rank=4, dropout=0.1, prior=prior, drop_prompt=0.1)
    training.fit(
        task,
        STEPS,
        lr=1e-3,
        batch_size=1,
        accumulation=2,
        warmup=3,
        ema=0.9,
        folder=folder,
        save_every=1,
        every=1,
        callback=lambda step, history: say.send(step),
        progress=False,
    )
    say.send(training.fingerprint(*task.parameters().values()))


def start(folder: str):
    """The process, and the end of the pipe at which it is heard."""
    heard, say = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=train, args=(folder, say))
    process.start()
    say.close()
    return process, heard


def kill_somewhere(folder: str, chance: random.Random) -> int:
    """Kills a training at a random moment after a random step, and says after which."""
    process, heard = start(folder)
    last = chance.randrange(STEPS)
    while heard.recv() != last:
        pass
    time.sleep(chance.uniform(0, 0.2))  # up to about the length of a step
    process.kill()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"the training ended with code {process.exitcode} before it could be killed")
    return last


def finish(folder: str) -> tuple[int, str]:
    """Trains to the end: the first step that was said, and the fingerprint of the final weights."""
    process, heard = start(folder)
    said = [heard.recv()]
    while not isinstance(said[-1], str):
        said.append(heard.recv())
    process.join()
    return said[0] if len(said) > 1 else STEPS, said[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    PROCESSES.set_forkserver_preload(["__main__"])
    chance, same = random.Random(), 0
    with tempfile.TemporaryDirectory() as place:
        _, reference = finish(f"{place}/whole")
        print(f"{STEPS} steps, never killed: weights {reference}")
        for k in range(kills):
            last = kill_somewhere(f"{place}/{k}", chance)
            first, weights = finish(f"{place}/{k}")
            same += weights == reference
            verdict = "the same weights" if weights == reference else f"OTHER WEIGHTS {weights}"
            print(f"{k + 1:3}  killed after step {last}; resumed, next look at step {first}: {verdict}", flush=True)
    print(f"{same} of {kills} killed runs end in the same weights, bit for bit")
    sys.exit(same != kills)


if __name__ == "__main__":
    main()
