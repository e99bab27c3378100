"""The tables, numbers and curves of benchmarks/cgpo_vs_grpo.py, from what its runs left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Run: TypeAlias = dict[str, Any]
Runs: TypeAlias = dict[str, dict[int, Run]]
"""What was measured, by method and seed."""

GROUPS = ("GRPO", "RLOO")
"""How the names of methods with several samples a prompt begin."""
CLOCKS = ("seconds", "prompts", "tokens")
WORDS = {"named": "reward for names", "right": "share of right names", "faithful": "true statements"}


def tables(runs: Runs) -> str:
    """All tables, in Markdown; means over the seeds that are there."""
    every = [run for each in runs.values() for run in each.values()]
    settings = every[0]["settings"]
    head = (
        f"From {settings['start'] or 'the embedded policy'}: {settings['seconds']:g} s of training a run, "
        f"{settings['prompts']} prompts an update, {settings['questions']} questions a validation, "
        f"{settings['cores']} of the cores for each, learning rate {settings['learning_rate']:g} × √G."
    )
    parts = [_rewards(runs, every), _tasks(runs, every), _words(runs, every), _metrics(runs, every)]
    parts += [_confidence(runs, every, kind) for kind in ("all", "answer")]
    parts += [
        _cost(runs),
        table("Numbers", ("what", "method", "target", "measured", "reached"), numbers(runs)),
    ]
    return "\n\n".join([head, *(part for part in parts if part)])


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with its title."""
    cells = [names, ["---"] * len(names), *rows]
    return "\n".join([f"**{title}**", "", *(f"| {' | '.join(map(str, row))} |" for row in cells)])


def _rewards(runs: Runs, every: Sequence[Run]) -> str:
    least = {name: min(run["points"][-1][name] for run in every) for name in CLOCKS}
    rows = []
    for method, each in runs.items():
        found = list(each.values())
        late = [at(run["points"], "seconds", least["seconds"]) for run in found]
        rows.append(
            (
                method,
                len(found),
                mean(run["points"][0]["reward"] for run in found),
                f"{mean(late)} ± {np.std(late):.3f}",
                *(mean(at(run["points"], name, least[name]) for run in found) for name in CLOCKS[1:]),
                ", ".join(f"{run['points'][-1]['reward']:.3f}" for run in found),
            )
        )
    names = ("method", "seeds", "start", *(f"after {least[name]:.0f} {name}" for name in CLOCKS))
    return table("Reward on validation", (*names, "each seed, end"), rows)


def _tasks(runs: Runs, every: Sequence[Run]) -> str:
    names = sorted(name for name in every[0]["points"][0] if name.startswith("reward/"))
    rows = [
        (method, *changes(each, names), f"{min(worst_change(run) for run in each.values()):+.4f}")
        for method, each in runs.items()
    ]
    return table("Reward of each task, start → end", ("method", *names, "worst change of a seed"), rows)


def _words(runs: Runs, every: Sequence[Run]) -> str:
    names = [name for name in WORDS if name in every[0]["points"][0]]
    rows = [(method, *changes(each, names)) for method, each in runs.items()]
    return table("Words, start → end", ("method", *(WORDS[name] for name in names)), rows) if names else ""


def changes(each: dict[int, Run], names: Sequence[str]) -> list[str]:
    """What a validation told at the start and at the end, means over the seeds."""
    return [
        f"{mean(run['points'][0][name] for run in each.values())} → "
        f"{mean(run['points'][-1][name] for run in each.values())}"
        for name in names
    ]


def _metrics(runs: Runs, every: Sequence[Run]) -> str:
    names = list(every[0]["start"])
    rows = [
        (
            method,
            *(
                f"{mean(run['start'][name] for run in each.values())} → "
                f"{mean(run['end'][name] for run in each.values())}"
                for name in names
            ),
        )
        for method, each in runs.items()
    ]
    return table("Task metrics, start → end", ("method", *names), rows)


def _confidence(runs: Runs, every: Sequence[Run], kind: str) -> str:
    points = {"start": [run["points"][0] for run in every]}
    points |= {method: [run["points"][-1] for run in each.values()] for method, each in runs.items()}
    keys = [f"confidence_{kind}/{name}" for name in ("gap", "ece", "auroc")]
    rows = [
        (method, *(mean(point[key] for point in some if key in point) for key in keys))
        for method, some in points.items()
    ]
    names = ("method", "abs(mean c - mean r)", "ECE", "AUROC for r > 0.5")
    return table(f"Confidence over {kind} tokens", names, rows)


def _cost(runs: Runs) -> str:
    best = best_of(runs, grouped=True)
    rows = []
    for method, each in runs.items():
        times, shares, missed = reached(each, runs.get(best or "", {}))
        shown = f"{np.mean(times):.0f} ({np.mean(shares):.2f} of its own)" if times else "–"
        rows.append(
            (
                method,
                f"{np.mean([run['steps'] for run in each.values()]):.0f}",
                f"{cost(each, 'seconds'):.4f}",
                f"{cost(each, 'tokens'):.1f}",
                f"{np.mean([run['peak_mb'] for run in each.values()]):.0f}",
                shown + (f", missed by {missed}" if missed else ""),
                f"{100 * max(beside(run) for run in each.values()):.1f} %",
            )
        )
    names = ("method", "updates", "s a prompt", "tokens a prompt", "peak MB", f"s to the best of {best}")
    return table("Cost", (*names, "share of a step beside rollout, segmenter and gradient"), rows)


def best_of(runs: Runs, *, grouped: bool) -> str | None:
    """The method of the highest mean reward at the end, among those with groups or the others.

    Compared are methods with the most seeds; None if there is none.
    """
    some = {name: each for name, each in runs.items() if name.startswith(GROUPS) is grouped}
    most = max(map(len, some.values()), default=0)
    ends = {
        name: float(np.mean([run["points"][-1]["reward"] for run in each.values()]))
        for name, each in some.items()
        if len(each) == most
    }
    return max(ends, key=ends.__getitem__) if ends else None


def numbers(runs: Runs) -> list[tuple[str, str, str, str, str]]:
    """What the best single-sample method and CGPO must do, what they do, and whether that is enough.

    What cannot be told yet is left out.
    """
    rows: list[tuple[str, str, str, str, str]] = []
    group, single = best_of(runs, grouped=True), best_of(runs, grouped=False)
    for method in dict.fromkeys(name for name in (single, "CGPO") if name in runs):
        assert method is not None
        each = runs[method]

        def say(what: str, must: str, measured: str, met: bool, method: str = method) -> None:
            rows.append((what, method, must, measured, "yes" if met else "no"))

        if group:
            _, shares, missed = reached(each, runs[group])
            shown = f"{np.mean(shares):.2f}" if shares else "–"
            shown += f", not reached in {missed} seeds" if missed else ""
            enough = bool(shares) and not missed and float(np.mean(shares)) <= 1
            say(f"seconds to the best of {group}, of its own", "≤ 1.0", shown, enough)
        worst = min(worst_change(run) for run in each.values())
        say("worst change of a task's reward", "≥ -0.005", f"{worst:+.4f}", worst >= -0.005)
        points = [run["points"] for run in each.values()]
        if all("right" in point[0] for point in points):
            change = float(np.mean([point[-1]["right"] - point[0]["right"] for point in points]))
            say("change of the share of right names", "≥ -0.01", f"{change:+.4f}", change >= -0.01)
        key = "confidence_answer/ece"
        limits = {"start": np.mean([point[0][key] for point in points])}
        if group:
            limits[group] = np.mean([run["points"][-1][key] for run in runs[group].values()])
        after = np.mean([point[-1][key] for point in points])
        must = ", ".join(f"< {limit:.4f} ({whose})" for whose, limit in limits.items())
        say("ECE of the answer's c", must, f"{after:.4f}", bool(after < min(limits.values())))
        share = max(beside(run) for run in each.values())
        say(
            "share of a step beside rollout, segmenter, gradient",
            "≤ 5 %",
            f"{100 * share:.1f} %",
            share <= 0.05,
        )
    return rows


def mean(values: Any) -> str:
    """To four digits, or a dash for none."""
    found = list(values)
    return f"{np.mean(found):.4f}" if found else "–"


def cost(each: dict[int, Run], clock: str) -> float:
    """Seconds or tokens a prompt, over all seeds."""
    total = [sum(run["points"][-1][name] for run in each.values()) for name in (clock, "prompts")]
    return total[0] / total[1]


def worst_change(run: Run) -> float:
    """Of the tasks' validation rewards, from the start to the end."""
    first, last = run["points"][0], run["points"][-1]
    return min(last[name] - first[name] for name in first if name.startswith("reward/"))


def at(points: Sequence[dict[str, float]], clock: str, value: float) -> float:
    """The validation reward when a clock showed a value, between two validations in proportion."""
    return float(np.interp(value, [point[clock] for point in points], [point["reward"] for point in points]))


def first_time(points: Sequence[dict[str, float]], reward: float) -> float | None:
    """When the validation reward was first reached, in seconds; between two validations in proportion."""
    before = points[0]
    for point in points:
        if point["reward"] >= reward:
            rise = point["reward"] - before["reward"]
            share = (reward - before["reward"]) / rise if rise > 0 else 1.0
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


def reached(each: dict[int, Run], baseline: dict[int, Run]) -> tuple[list[float], list[float], int]:
    """Seconds to the baseline's best reward of the same seed, their share of its own, and how many missed it.

    Seeds whose baseline never got beyond its start are left out.
    """
    seconds, shares, missed = [], [], 0
    for seed in sorted(each.keys() & baseline.keys()):
        best = max(point["reward"] for point in baseline[seed]["points"])
        own, theirs = (first_time(runs[seed]["points"], best) for runs in (each, baseline))
        if own is None:
            missed += 1
        elif theirs:
            seconds.append(own)
            shares.append(own / theirs)
    return seconds, shares, missed


def beside(run: Run) -> float:
    """Share of a step that is neither rollout (with its log-probabilities), segmenter nor gradient."""
    inside = ("rollout", "scoring", "segmenter", "update")
    phases = run["phases"]
    return 1 - sum(phases[f"time/{name}"] for name in inside) / phases["time/step"]


def draw(runs: Runs, path: Path) -> None:
    """Validation reward against seconds, prompts and tokens: the mean over seeds, and their range."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), dpi=110, sharey=True)
    axis: Any
    for axis, clock in zip(axes, CLOCKS, strict=True):
        for method, each in runs.items():
            found = [run["points"] for run in each.values()]
            marks = np.linspace(0, min(points[-1][clock] for points in found), 60)
            rewards = np.array([[at(points, clock, mark) for mark in marks] for points in found])
            [line] = axis.plot(marks, rewards.mean(0), label=method)
            axis.fill_between(marks, rewards.min(0), rewards.max(0), alpha=0.15, color=line.get_color())
        axis.set_xlabel(f"training {clock}" if clock == "seconds" else clock, fontsize=9)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel("mean greedy reward, held out", fontsize=9)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    print(f"\n{path}")
