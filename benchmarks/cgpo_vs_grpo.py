"""Single-sample methods and GRPO from one fine-tuned policy, on the same prompts: tables, numbers, curves.

    python benchmarks/cgpo_vs_grpo.py --start runs/sft-early/policy --seconds 1800 --out runs/cgpo-vs-grpo

Every method takes the same number of prompts an update and trains for the same seconds (validation not
counted), so that runs end at equal wall-clock; what they were at equal prompts is read between validations in
proportion. The learning rate is the recipe's times the root of G: the noise of an update falls with the root
of its completions, and with one rate for all the single samples walk at random. Give a start that leaves
room to learn, and a machine that does nothing else.

CGPO is the paper's, A = r - c. "Task" and "prompt" are its baselines, with brakes; a baseline of the prompt
has --visited prompts alone, so that each comes again. RLOO is GRPO without scaling and with a normaliser that
does not depend on the lengths: its advantage is that of RLOO times (G - 1) / G, a constant, which AdamW takes
out. Names and statements are judged where the prompts know them, whatever the recipe rewards.

A run is a method and a seed. Each is a process of its own that leaves a JSON file in --out; the same call
again goes on with the runs that are missing. `--new 2` stops after two of them, `--new 0` only prints and
draws what is there. `--jobs 2` has two runs at a time, each on its own half of the cores; a second call
beside the first takes other runs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from race_tables import Runs, draw, tables

METHODS: dict[str, dict[str, Any]] = {
    "CGPO": {},
    "task, brake 0": {"baseline": "task", "brake": 0.0},
    "task, brake 0.1": {"baseline": "task", "brake": 0.1},
    "task, brake 0.25": {"baseline": "task", "brake": 0.25},
    "task, brake 1": {"baseline": "task", "brake": 1.0},
    "prompt, brake 0": {"baseline": "prompt", "brake": 0.0},
    "REINFORCE": {"confidence": "none"},
    "RLOO, G = 4": {"group": 4, "scale_rewards": "none", "loss_type": "dr_grpo"},
    "GRPO, G = 4": {"group": 4},
    "GRPO, G = 4, unscaled": {"group": 4, "scale_rewards": "none"},
    "GRPO, G = 8": {"group": 8},
    "GRPO, G = 8, unscaled": {"group": 8, "scale_rewards": "none"},
}
OF_A_RUN = ("output", "seed", "log_every", "save_every", "validate_every", "keep", "keep_best")
"""Of a recipe, what is a run's own or not used here."""
PEAK_UNITS = 1024**2 if sys.platform == "darwin" else 1024


def main() -> None:
    """Run what is missing, then print and draw what is there."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--recipe", type=Path, default=Path("recipes/nano/cgpo.yaml"))
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="over the recipe")
    arguments.add_argument("--start", help="the fine-tuned policy's folder; the recipe's if not given")
    arguments.add_argument("--out", type=Path, default=Path("runs/cgpo-vs-grpo"))
    arguments.add_argument("--seconds", type=float, default=1800.0, help="of training, each run")
    arguments.add_argument("--prompts", type=int, default=16, help="prompts an update, of every method")
    arguments.add_argument("--completions", type=int, default=32, help="completions a gradient pass at most")
    arguments.add_argument("--validations", type=int, default=10, help="of a run, beside that of the start")
    arguments.add_argument("--questions", type=int, default=96, help="of a validation, spread over all")
    arguments.add_argument("--visited", type=int, default=64, help="prompts of a baseline of the prompt")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    arguments.add_argument("--new", type=int, help="runs to add at most; all that are missing if not given")
    arguments.add_argument(
        "--jobs", type=int, default=1, help="runs at a time, each on its share of the cores"
    )
    arguments.add_argument("--cores", nargs="*", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--one", nargs=2, metavar=("METHOD", "SEED"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, options.cores)
        run_one(options, options.one[0], int(options.one[1]))
        return
    missing = [
        (method, seed)
        for seed in range(options.seeds)
        for method in options.methods
        if not run_file(options.out, method, seed).is_file()
    ]
    if missing[: options.new]:
        load(options.out, settings_of(options))  # refuses other settings before the time is spent
        failed = run_missing(options, missing[: options.new])
        if failed:
            sys.exit(f"{', '.join(failed)} failed, as said above; the same call again goes on with it")
    runs = load(options.out)
    if not runs:
        sys.exit(f"{options.out} holds no finished run: call again without --new 0")
    print(tables(runs))
    draw(runs, options.out / "curves.png")


def run_missing(options: argparse.Namespace, missing: Sequence[tuple[str, int]]) -> list[str]:
    """Run each in a process of its own, `--jobs` at a time; those that failed."""
    shares = shares_of_cores(options.jobs)
    waiting, failed = iter(missing), []
    lock = threading.Lock()

    def work(cores: list[int]) -> None:
        while True:
            with lock:
                method, seed = next(waiting, ("", 0))
            if not method:
                return
            path = run_file(options.out, method, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path.with_suffix(".lock"), "w") as held:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # another call is at it
                if path.is_file():
                    continue  # another call has done it
                print(f"{method}, seed {seed}", file=sys.stderr)
                command = [*sys.orig_argv, "--one", method, str(seed), "--cores", *map(str, cores)]
                environment = os.environ | {"OMP_NUM_THREADS": str(len(cores))}
                if subprocess.run(command, env=environment, check=False).returncode:
                    failed.append(f"{method}, seed {seed}")

    threads = [threading.Thread(target=work, args=(cores,)) for cores in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def shares_of_cores(jobs: int) -> list[list[int]]:
    """The cores that this process may use, in as many equal shares."""
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = sorted(own)
    if not 1 <= jobs <= len(cores):
        sys.exit(f"--jobs {jobs} on {len(cores)} cores: give 1 to {len(cores)}")
    each = len(cores) // jobs
    return [cores[job * each : (job + 1) * each] for job in range(jobs)]


def run_file(out: Path, method: str, seed: int) -> Path:
    """Where a run's numbers go."""
    short = method.replace(", ", "-").replace(" = ", "").replace(" ", "-").lower()
    return out / f"{short}-{seed}.json"


def load(out: Path, settings: dict[str, Any] | None = None) -> Runs:
    """The finished runs, in the order of `METHODS`; they must all be of the same settings, or of these."""
    runs: Runs = {}
    for method in METHODS:
        for path in sorted(out.glob(run_file(out, method, 0).name.replace("-0.json", "-[0-9]*.json"))):
            run = json.loads(path.read_text())
            settings = settings or run["settings"]
            if run["settings"] != settings:
                other = [name for name in settings if run["settings"].get(name) != settings[name]]
                sys.exit(f"{path} is of another {', '.join(other)}: give the same, or choose another --out")
            runs.setdefault(method, {})[run["seed"]] = run
    return runs


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs of a comparison have in common."""
    names = ("seconds", "prompts", "completions", "validations", "questions", "visited")
    recipe = asdict(recipe_of(options))
    kept = {name: value for name, value in recipe.items() if name not in OF_A_RUN}
    cores = len(options.cores or shares_of_cores(options.jobs)[0])
    values = {name: getattr(options, name) for name in names} | {"cores": cores} | kept
    return json.loads(json.dumps(values, default=str))


def recipe_of(options: argparse.Namespace) -> Any:
    """The recipe that all methods change."""
    from saliency_r1.training.config import load_recipe
    from saliency_r1.training.reinforcement.train import CGPORecipe

    recipe = load_recipe(options.recipe, CGPORecipe, options.set)
    # How many steps there will be is not known beforehand: hence a constant rate.
    changes: dict[str, Any] = {"schedule": "constant", "warmup": 0.0, "max_steps": 1_000_000}
    return replace(
        recipe, **changes, save_every=1_000_000, keep_best=False, start=options.start or recipe.start
    )


def run_one(options: argparse.Namespace, method: str, seed: int) -> None:
    """Train once, validating in equal steps of time, and write the numbers."""
    import torch
    from transformers import TrainerCallback

    from saliency_r1.data.prompt_examples import read_prompts
    from saliency_r1.data.samples import spread
    from saliency_r1.files import write_bytes_atomic
    from saliency_r1.training.reinforcement.train import GRPORecipe, build_trainer, rl_settings
    from saliency_r1.training.reinforcement.validation import answer, summarise

    recipe = recipe_of(options)
    change = METHODS[method]
    total = options.prompts * change.get("group", 1)
    passes = -(-total // options.completions)
    if total % passes:
        sys.exit(f"{total} completions an update do not divide into {passes} gradient passes")
    if "group" in change:
        # What scaling means is another thing with groups.
        known = {field.name for field in fields(GRPORecipe)} - {"scale_rewards"}
        recipe = GRPORecipe(**{name: value for name, value in asdict(recipe).items() if name in known})
    points: list[dict[str, float]] = []
    ends: list[dict[str, float]] = []
    phases: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        recipe = replace(
            recipe,
            **change,
            learning_rate=recipe.learning_rate * change.get("group", 1) ** 0.5,
            output=Path(scratch),
            seed=seed,
            batch_size=total // passes,
            accumulation=passes,
        )
        held_out = spread(read_prompts(recipe.validation), options.questions)
        asked = read_prompts(recipe.train)
        if change.get("baseline") == "prompt":
            asked = spread(asked, options.visited)
        trainer, policy, photos = build_trainer(recipe, rl_settings(recipe), asked)
        reward: Any = trainer.reward_funcs[0]

        class Watch(TrainerCallback):
            """Validates when its time has come, and stops when the seconds are spent."""

            def validate(self, whole: bool) -> None:
                answers = answer(policy, held_out, photos, reward, max_new_tokens=recipe.max_tokens)
                points.append({**trainer.totals, **summarise(answers, ""), **words(answers, photos)})
                if whole:
                    ends.append(task_metrics(answers, photos, reward))

            def on_train_begin(self, *_: Any, **__: Any) -> None:
                self.validate(whole=True)

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                metrics = trainer._metrics["train"]
                phases.append({name: metrics[name][-1] for name in metrics if name.startswith("time/")})
                done = trainer.totals["seconds"] >= options.seconds
                if done or trainer.totals["seconds"] >= len(points) * options.seconds / options.validations:
                    self.validate(whole=done)
                control.should_training_stop = done

        trainer.add_callback(Watch())
        trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAK_UNITS
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1024**2
    result = {
        "method": method,
        "seed": seed,
        "settings": settings_of(options),
        "points": points,
        "start": ends[0],
        "end": ends[-1],
        "phases": {name: float(np.mean([phase[name] for phase in phases])) for name in phases[0]},
        "steps": len(phases),
        "peak_mb": peak,
    }
    write_bytes_atomic(run_file(options.out, method, seed), json.dumps(result, indent=1).encode())


def words(answers: Sequence[Any], photos: Any) -> dict[str, float]:
    """What the rewards of names and of statements say of greedy answers, where they have a say.

    Args:
        answers: to the questions.
        photos: reads their photos.

    Returns:
        `named`, `right` (the share whose names are all right) and `faithful`, as far as there are any.
    """
    from saliency_r1.rewards import faithful, named

    columns: dict[str, Any] = {
        "completions": [one.text for one in answers],
        "task": [str(one.example.task) for one in answers],
        "example": [one.example for one in answers],
        "images": [[photos(key) for key in one.example.keys] for one in answers],
    }
    called = [value for value in named(**columns) if value is not None]
    stated = [value for value in faithful(**columns) if value is not None]
    values = {"named": called, "right": [float(value == 1) for value in called], "faithful": stated}
    return {name: float(np.mean(found)) for name, found in values.items() if found}


def task_metrics(answers: Sequence[Any], photos: Any, reward: Any) -> dict[str, float]:
    """SOD MAE and S, SIS AP50, CoSOD S of greedy answers, as the pipeline would give them.

    But for this: an answer that is not of the form counts as one that names nothing.
    """
    from saliency_r1.data.true_instances import encode
    from saliency_r1.evaluation.instance_metrics import InstanceMetrics, PredictedInstance
    from saliency_r1.evaluation.sod import SodMetrics
    from saliency_r1.rewards.segmenting import Question
    from saliency_r1.sis import distinct_instances, scored_instances
    from saliency_r1.tasks import Task

    maps = {Task.SOD: SodMetrics(), Task.COSOD: SodMetrics()}
    instances, seen = InstanceMetrics(), set()
    for number, one in enumerate(answers):
        task, response = one.example.task, one.scored.response
        texts = response.expressions if response else ()
        seen.add(task)
        for image, key in enumerate(one.example.keys):
            truths = one.example.truths(image)
            [found] = reward.segmenter.segment([Question(key, photos(key), texts)])
            if task is Task.SIS:
                kept = distinct_instances(scored_instances(texts, found, [None] * len(texts)))
                masks = [PredictedInstance(encode(each.binary), each.score) for each in kept]
                instances.update(number, [(encode(mask), False) for mask in truths], masks)
            else:
                mask = found.probabilities.max(axis=0, initial=0)
                true = np.logical_or.reduce(truths) if truths else np.zeros(mask.shape, bool)
                maps[task].update(np.rint(255 * mask).astype(np.uint8), true)
    values: dict[str, float | None] = {}
    if Task.SOD in seen:
        sod = maps[Task.SOD].compute()
        values |= {"SOD MAE": sod.mae, "SOD S": sod.s_measure}
    if Task.SIS in seen:
        values["SIS AP50"] = instances.compute().ap50
    if Task.COSOD in seen:
        values["CoSOD S"] = maps[Task.COSOD].compute().s_measure
    return {name: value for name, value in values.items() if value is not None}


if __name__ == "__main__":
    main()
