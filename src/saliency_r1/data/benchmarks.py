"""Known benchmarks: their numbers of photos, sources, terms and known quirks.

None is downloaded by this package, and none may be redistributed: get each from its authors and read the
    terms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from saliency_r1.tasks import Task

_RESEARCH = "for research; no licence is stated, the photos belong to their owners"


@dataclass(frozen=True)
class Benchmark:
    """The known facts of a benchmark.

    Attributes:
        name: its usual name.
        task: the task that it measures.
        counts: numbers of photos that it may have, by the name of the part.
        source: the authors' page.
        terms: terms of use.
        groups: number of groups, for CoSOD.
        at_least: whether the counts are lower bounds.
        quirks: surprising properties.
        aliases: other names of the folder.
    """

    name: str
    task: Task
    counts: dict[str, int]
    source: str
    terms: str = _RESEARCH
    groups: int | None = None
    at_least: bool = False
    quirks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def part_of(self, photos: int) -> str | None:
        """Return the part that has so many photos; None if no part has."""
        for part, count in self.counts.items():
            if photos == count or (self.at_least and photos >= count):
                return part
        return None

    @property
    def expected(self) -> str:
        """Return the counts in words."""
        more = "at least " if self.at_least else ""
        photos = " or ".join(f"{more}{count:,} ({part})" for part, count in self.counts.items())
        return f"{photos} in {self.groups} groups" if self.groups else photos


BENCHMARKS = (
    Benchmark(
        "DUTS-TE",
        Task.SOD,
        {"test": 5019},
        "http://saliencydetection.net/duts/",
        quirks=(
            "maps of 5,017 are in circulation, without ILSVRC2012_test_00036002 and sun_bcogaqperiljqupq",
        ),
    ),
    Benchmark(
        "DUTS-TR",
        Task.SOD,
        {"training": 10553, "training, one photo short": 10552},
        "http://saliencydetection.net/duts/",
        quirks=("the training set: numbers on it say nothing about methods trained on it",),
    ),
    Benchmark(
        "DUT-OMRON",
        Task.SOD,
        {"all": 5168},
        "http://saliencydetection.net/dut-omron/",
        quirks=(
            "downloads from before 2018 hold four more photos, without masks: img_561715398, "
            "sun_bqfgwnmzhjwuphdi, "
            "sun_bswlalhygmnrhvuw, sun_buaqzytduodbufcb; its authors say to delete them",
            "the masks are in a folder named pixelwiseGT-new-PNG",
        ),
        aliases=("DUTOMRON", "OMRON", "DUTO"),
    ),
    Benchmark(
        "ECSSD",
        Task.SOD,
        {"all": 1000},
        "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
    ),
    Benchmark(
        "HKU-IS",
        Task.SOD,
        {"all": 4447, "test": 1447},
        "https://i.cs.hku.hk/~yzyu/research/deep_saliency.html",
        quirks=(
            "papers report on all 4,447 or on the test split of 1,447: compare like with like",
            "published maps of 4,445 are in circulation: two are missing, an error unless --missing empty",
        ),
    ),
    Benchmark(
        "PASCAL-S",
        Task.SOD,
        {"all": 850},
        "http://cbi.gatech.edu/salobj/",
        quirks=(
            "masks have several values, the share of twelve viewers that chose the object: binarised above "
            "127 here, which leaves 5 masks empty; papers differ in their threshold",
        ),
        aliases=("PASCALS",),
    ),
    Benchmark(
        "SOD",
        Task.SOD,
        {"all": 300},
        "https://elderlab.yorku.ca/SOD/",
        quirks=(
            "the original truth is outlines by seven viewers; the masks in circulation are made from them",
        ),
    ),
    Benchmark(
        "CoCA",
        Task.COSOD,
        {"all": 1295},
        "http://zhaozhang.net/coca.html",
        groups=80,
        quirks=("the masks' folder is named `binary` in its authors' archive",),
    ),
    Benchmark(
        "CoSal2015",
        Task.COSOD,
        {"all": 2015},
        "https://github.com/zzhanghub/eval-co-sod",
        groups=50,
        aliases=("Cosal15",),
    ),
    Benchmark("CoSOD3k", Task.COSOD, {"all": 3316}, "https://github.com/DengPingFan/CoSOD3K", groups=160),
    Benchmark(
        "ILSO-1K",
        Task.SIS,
        {"all": 1000, "train": 500, "val": 200, "test": 300},
        "https://github.com/Kinpzz/MSRNet-CVIU",
        quirks=("also known as ISOD; ILSO-2K, of 2,000 photos, is not comparable",),
        aliases=("ILSO", "ISOD", "ILSO1K"),
    ),
    Benchmark(
        "SOC",
        Task.SIS,
        {"all": 6000, "train": 3600, "val": 1200, "test": 1200, "val or test, salient": 600},
        "http://dpfan.net/socbenchmark/",
        quirks=("half of its photos hold nothing salient; SIS papers leave these out",),
    ),
    Benchmark(
        "SIS10K",
        Task.SIS,
        {"all": 10000},
        "https://github.com/ssecv/OQTR",
        at_least=True,
        quirks=("we have not held a copy: the count is a lower bound from its name and paper",),
    ),
)


def find_benchmark(name: str) -> Benchmark | None:
    """Return the benchmark with that name, or of a folder with it; case and punctuation do not matter."""
    wanted = _plain(name)
    for benchmark in BENCHMARKS:
        if wanted in {_plain(known) for known in (benchmark.name, *benchmark.aliases)}:
            return benchmark
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
