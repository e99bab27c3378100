"""Many photos: every kind of source, what the shards hold, and that a run goes on where it stopped."""

from __future__ import annotations

import http.server
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco
from rich.console import Console
from skimage import data

from crashing_pipeline import DEADLY_SIZE, load_deadly
from processes import interruptible
from repository import TESTS
from saliency_r1 import SaliencyPipeline
from saliency_r1.batch.chunk_worker import ChunkWorker, Job
from saliency_r1.batch.local import run_local
from saliency_r1.batch.plan import Chunk, Settings
from saliency_r1.batch.rows import SCHEMA, Row
from saliency_r1.batch.run import Outcome, run_batch
from saliency_r1.batch.sources import Photo, find_photos, read_photos
from saliency_r1.batch.storage import Folder
from saliency_r1.cli import main
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task

Chunks = Iterable[tuple[Chunk, Sequence[Photo]]]
PICTURES = ("astronaut", "chelsea", "coffee", "rocket")
REFUSAL = "not a picture (the content is text)"


def picture(number: int) -> bytes:
    """A small crop of a real photo, JPEG."""
    whole = Image.fromarray(getattr(data, PICTURES[number % len(PICTURES)])())
    left, top = 7 * number % 60, 5 * number % 40
    crop = whole.crop((left, top, left + 320, top + 240)).resize((128, 96))
    content = io.BytesIO()
    crop.save(content, format="JPEG", quality=92)
    return content.getvalue()


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    return [picture(number) for number in range(6)]


@pytest.fixture(scope="module")
def pipe() -> SaliencyPipeline:
    return SaliencyPipeline.from_pretrained()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> Path:
    """Six photos in two folders, one of which also has a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number, content in enumerate(contents):
        path = folder / "ab"[number // 3] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (folder / "a" / "broken.jpg").write_text("this is not a picture")
    (folder / ".hidden.jpg").write_bytes(contents[0])
    return folder


def settings(*sources: object, **given: Any) -> Settings:
    known: dict[str, Any] = dict.fromkeys(("policy", "segmenter", "column", "group_column"))
    known |= {"task": Task.SOD, "fast": True, "group_images": 5, "shard_rows": 4, "png": False}
    return Settings.make([str(source) for source in sources], **known | given)


def run(pipe: SaliencyPipeline, of: Settings, out: object, most: int | None = None) -> Outcome:
    """A run in this process; `most` ends it after that many chunks, as a kill would."""
    masks = f"{out}/_masks" if of.png else None
    worker = ChunkWorker(Job(lambda: pipe, of.task, not of.fast, of.group_images, masks, None))

    def engine(chunks: Chunks) -> Iterator[tuple[Chunk, list[Row], str]]:
        for number, (chunk, photos) in enumerate(chunks):
            if number == most:
                raise KeyboardInterrupt
            yield chunk, worker.rows(photos), worker.model

    return run_batch(of, Folder(str(out)), engine, Console(quiet=True))


def rows_of(out: object) -> list[Row]:
    """All rows, as a reader of Parquet data sets finds them, sorted."""
    rows = pyarrow.dataset.dataset(str(out), exclude_invalid_files=False).to_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["path"]))


def found(*sources: object, **given: Any) -> list[Photo]:
    return [Photo(**row) for row in find_photos([str(source) for source in sources], **given).to_pylist()]


def read(photos: Sequence[Photo]) -> list[bytes]:
    return [content for _, content in read_photos(photos) if isinstance(content, bytes)]


def test_a_folder_gives_the_pictures_in_it_and_below(folder: Path, contents: list[bytes]) -> None:
    photos = found(folder)
    assert [photo.stem for photo in photos] == ["a/0", "a/1", "a/2", "a/broken", "b/3", "b/4", "b/5"]
    assert [photo.path for photo in photos][-1] == str(folder / "b" / "5.jpg")
    assert [photo.group for photo in photos] == [str(folder / "a")] * 4 + [str(folder / "b")] * 3
    assert read(photos)[:3] == contents[:3]


def test_a_glob_gives_what_it_matches_and_stems_are_unique(folder: Path, contents: list[bytes]) -> None:
    photos = found(folder / "*" / "[0-9].jpg", folder / "b" / "3.jpg", folder / "b")
    assert [photo.stem for photo in photos[:6]] == ["a/0", "a/1", "a/2", "b/3", "b/4", "b/5"]
    assert [photo.stem for photo in photos[6:]] == ["3", "3-2", "4", "5"]
    assert read(photos[:6]) == contents


def test_a_list_names_paths_from_its_own_folder_on_and_urls(folder: Path, contents: list[bytes]) -> None:
    (folder / "list.txt").write_text(f"a/0.jpg\n\n{folder}/b/3.jpg\nfile://{folder}/b/4.jpg\nb/gone.jpg\n")
    photos = found(folder / "list.txt")
    (folder / "list.txt").unlink()
    assert [photo.stem for photo in photos] == ["0", "3", "4", "gone"]
    assert read(photos) == [contents[number] for number in (0, 3, 4)]
    assert isinstance(list(read_photos(photos))[3][1], FileNotFoundError)


@pytest.mark.parametrize("structs", [False, True])
def test_a_table_of_pictures_is_read_across_its_row_groups(
    tmp_path: Path, contents: list[bytes], structs: bool
) -> None:
    many = [contents[number % 6] + bytes([number]) for number in range(50)]
    cells: list[Any] = [{"bytes": cell, "path": None} for cell in many] if structs else list(many)
    cells[7] = None
    table = pa.table({"image": cells, "kind": [f"k{number % 3}" for number in range(50)]})
    pq.write_table(table, tmp_path / "photos.parquet", row_group_size=20)
    photos = found(tmp_path / "photos.parquet", group_column="kind")
    assert [photo.group for photo in photos[:4]] == ["k0", "k1", "k2", "k0"]
    assert photos[49].path == f"{tmp_path}/photos.parquet#49"
    assert read([photos[number] for number in (3, 18, 19, 20, 45, 2)]) == [
        many[number] for number in (3, 18, 19, 20, 45, 2)
    ]
    assert len(read(photos)) == 49
    assert "empty" in str(next(read_photos([photos[7]]))[1])


def test_a_table_of_paths(tmp_path: Path, folder: Path, contents: list[bytes]) -> None:
    paths = [str(folder / "a" / "0.jpg"), str(folder / "b" / "3.jpg")]
    pq.write_table(pa.table({"photo": paths, "number": [1, 2]}), tmp_path / "list.parquet")
    assert read(found(tmp_path / "list.parquet", column="photo")) == [contents[0], contents[3]]
    with pytest.raises(SaliencyError, match=r"no column image or path.*there are photo, number.*--column"):
        found(tmp_path / "list.parquet")
    with pytest.raises(SaliencyError, match="no column 'colour', there are photo, number"):
        found(tmp_path / "list.parquet", column="colour")
    with pytest.raises(SaliencyError, match="'number' holds int64, expected paths, or pictures as bytes"):
        found(tmp_path / "list.parquet", column="number")


def write_tar(path: Path, contents: Sequence[bytes], folder: str = "") -> None:
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            for name, held in ((f"{folder}{number:03d}.jpg", content), (f"{folder}{number:03d}.json", b"{}")):
                member = tarfile.TarInfo(name)
                member.size = len(held)
                tar.addfile(member, io.BytesIO(held))


def test_webdataset_shards(tmp_path: Path, contents: list[bytes]) -> None:
    write_tar(tmp_path / "00.tar", contents[:4])
    write_tar(tmp_path / "01.tar", contents[4:], folder="cups/")
    photos = found(tmp_path)
    assert read(photos) == contents
    assert [photo.group for photo in photos[3:5]] == [f"{tmp_path}/00.tar", "cups"]
    with fsspec.open(photos[5].path, "rb") as file:  # the path is one that fsspec opens
        assert file.read() == contents[5]
    assert read(found(tmp_path / "*.tar")) == contents
    (tmp_path / "02.tar").write_bytes(b"no tar")
    with pytest.raises(SaliencyError, match=r"cannot be read \(.*\)"):
        found(tmp_path / "02.tar")


def test_a_source_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    for source, expected in (
        (tmp_path, "no photos, expected a folder"),
        (tmp_path / "*.jpg", "no photos"),
        (tmp_path / "gone", "no such file or folder"),
        ("nothing://photos", "cannot be reached .*nothing"),
    ):
        with pytest.raises(SaliencyError, match=expected):
            found(source)


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_photos_over_http(server: str, tmp_path: Path, contents: list[bytes]) -> None:
    (tmp_path / "list.txt").write_text(f"{server}/a/1.jpg\n{server}/gone.jpg\n")
    photos = found(tmp_path / "list.txt", f"{server}/b/3.jpg")
    assert read(photos) == [contents[1], contents[3]]


def test_rows_are_what_the_pipeline_says(pipe: SaliencyPipeline, folder: Path, tmp_path: Path) -> None:
    outcome = run(pipe, settings(folder, png=True), tmp_path / "out")
    assert outcome == Outcome(photos=7, errors=1, before=0)
    rows = rows_of(tmp_path / "out")
    assert [Path(row["path"]).stem for row in rows] == ["0", "1", "2", "broken", "3", "4", "5"]
    assert rows[3] == dict.fromkeys(SCHEMA.names) | {
        "path": str(folder / "a" / "broken.jpg"),
        "task": "sod",
        "error": REFUSAL,
    }
    good = [row for row in rows if row["error"] is None]
    results = pipe([row["path"] for row in good], reasoning=False)
    for row, result in zip(good, results, strict=True):
        assert row["response"] == result.text
        assert tuple(row["expressions"]) == result.expressions
        assert row["confidence"] == pytest.approx(result.confidence, abs=1e-3)
        stem = Path(row["path"]).relative_to(folder).with_suffix("").as_posix()
        written = np.asarray(Image.open(tmp_path / "out" / "_masks" / f"{stem}_mask.png"))
        assert written.shape == (96, 128)
        assert (written > 0).any() == bool(row["rle"])
        for rle, box, score, instance in zip(
            row["rle"], row["boxes"], row["scores"], result.instances, strict=True
        ):
            mask = coco.decode(rle).astype(bool)
            assert (mask != instance.binary).mean() < 0.002
            assert np.array_equal(written >= 128, mask)
            if box is None:  # a named thing that was not found
                assert not mask.any()
                continue
            columns = np.flatnonzero(mask.any(0))
            assert [box[0], box[0] + box[2]] == [columns[0], columns[-1] + 1]
            assert score == pytest.approx(instance.score, abs=1e-3)
    assert any(row["rle"] for row in good)


def test_a_shard_says_which_model_and_version(pipe: SaliencyPipeline, folder: Path, tmp_path: Path) -> None:
    run(pipe, settings(folder), tmp_path / "out")
    shard = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    assert shard.num_rows == 4
    assert shard.schema.metadata == {b"model": b"nano", b"version": b"0.1.0", b"errors": b"1"}
    assert shard.schema.equals(SCHEMA)


def test_instances_have_an_entry_each(pipe: SaliencyPipeline, folder: Path, tmp_path: Path) -> None:
    run(pipe, settings(folder / "b", task=Task.SIS, png=True), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 3
    assert any(row["rle"] for row in rows)
    for row in rows:
        assert len(row["rle"]) == len(row["boxes"]) == len(row["scores"]) == len(row["mask_expressions"])
        assert set(row["mask_expressions"]) <= set(row["expressions"])
        masks = sorted((tmp_path / "out" / "_masks").glob(f"{Path(row['path']).stem}_mask_*.png"))
        assert len(masks) == len(row["rle"])


def test_a_folder_is_a_group_and_never_cut(pipe: SaliencyPipeline, folder: Path, tmp_path: Path) -> None:
    outcome = run(pipe, settings(folder, task=Task.COSOD, shard_rows=1), tmp_path / "out")
    assert outcome == Outcome(photos=7, errors=1, before=0)
    shards = [pq.read_table(path).to_pylist() for path in sorted((tmp_path / "out").glob("part-*"))]
    assert [[Path(row["path"]).stem for row in shard] for shard in shards] == [
        ["0", "1", "2", "broken"],
        ["3", "4", "5"],
    ]
    for shard, name in zip(shards, "ab", strict=True):
        assert {row["group"] for row in shard} == {str(folder / name)}
        assert len({str(row["expressions"]) for row in shard if row["error"] is None}) == 1
    assert shards[0][3]["error"] == REFUSAL
    alone = pipe([row["path"] for row in shards[1]], "cosod", reasoning=False)
    assert shards[1][0]["response"] == alone[0].text


def test_in_and_out_of_memory_urls(pipe: SaliencyPipeline, contents: list[bytes], tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for number, content in enumerate(contents):
        store.pipe_file(f"/in/{number}.jpg", content)
    of = settings("memory://in", png=True)
    with pytest.raises(KeyboardInterrupt):
        run(pipe, of, "memory://out", most=1)
    assert run(pipe, of, "memory://out") == Outcome(photos=6, errors=0, before=4)
    names = [Path(path).name for path in store.find("/out")]
    assert names.count("0_mask.png") == 1
    assert not [name for name in names if name.endswith(".tmp")]
    with store.open("/out/part-00001.parquet", "rb") as file:
        assert pq.read_table(file).column("path").to_pylist() == ["memory:///in/4.jpg", "memory:///in/5.jpg"]
    store.rm("/in", recursive=True)
    store.rm("/out", recursive=True)


def test_a_finished_run_does_nothing_again_and_keeps_its_list(
    pipe: SaliencyPipeline, folder: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("3", "4"):
        (photos / f"{name}.jpg").write_bytes((folder / "b" / f"{name}.jpg").read_bytes())
    run(pipe, settings(photos), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (photos / "later.jpg").write_bytes(b"")
    (tmp_path / "out" / ".0123456789abcdef.tmp").write_bytes(b"half a shard")
    (tmp_path / "out" / "_masks").mkdir()
    (tmp_path / "out" / "_masks" / ".0123456789abcdef.tmp").write_bytes(b"half a mask")
    assert run(pipe, settings(photos), tmp_path / "out", most=0) == Outcome(2, 0, before=2)
    after = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path: path.stat().st_mtime_ns for path in after} == before


def test_another_command_into_the_same_folder_is_refused(
    pipe: SaliencyPipeline, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(pipe, settings(folder / "b"), tmp_path / "out")
    for of, expected in (
        (settings(folder / "b", task=Task.SIS), "holds a run with task sod, this one has sis"),
        (settings(folder / "a"), f"holds a run with sources {folder}/b, this one has {folder}/a"),
    ):
        with pytest.raises(SaliencyError, match=expected):
            run(pipe, of, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(SaliencyError, match=r"holds 'thesis\.txt' and no run"):
        run(pipe, settings(folder), tmp_path / "mine")
    given = ["batch", str(folder / "b"), "--out", str(tmp_path / "out"), "--fast", "--shard-rows", "5"]
    assert main(given) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "shard_rows 4, this one has 5" in printed
    (tmp_path / "out" / "part-00000.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(SaliencyError, match=r"part-00000\.parquet: cannot be read; delete it"):
        run(pipe, settings(folder / "b"), tmp_path / "out")


def test_models_that_cannot_be_loaded_are_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["batch", str(folder), "--out", str(tmp_path / "out"), "--segmenter", "/nowhere"]
    assert main(arguments) == 2
    assert "/nowhere: no such folder" in capsys.readouterr().err
    assert main(["batch", str(folder), "--out", str(tmp_path / "2"), "--gpus", "1"]) == 2
    assert "need --engine ray" in capsys.readouterr().err


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(24):
        (folder / f"{number:02d}.jpg").write_bytes(picture(number))
    (folder / "12.jpg").write_bytes(picture(12)[:700])
    return folder


@pytest.fixture(scope="module")
def unbroken(pipe: SaliencyPipeline, many: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of a run that nothing disturbed, on one thread as workers have."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("unbroken") / "out"
    outcome = run(pipe, settings(many, shard_rows=3), out)
    torch.set_num_threads(before)
    assert outcome == Outcome(photos=24, errors=1, before=0)
    return rows_of(out)


def start(many: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """The command, as the leader of a process group."""
    command = [sys.executable, "-m", "saliency_r1", "batch", str(many), "--out", str(out), "--fast"]
    return subprocess.Popen(
        [*command, "--shard-rows", "3", "--workers", "2", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=interruptible,
    )


def shards(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def until(condition: Any, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until something is so, or the process has ended."""
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def test_killed_five_times_and_finished_it_has_the_rows_of_an_unbroken_run(
    many: Path, tmp_path: Path, unbroken: list[Row]
) -> None:
    out = tmp_path / "out"
    moments = random.Random(7)
    there = 0
    for kill in range(5):
        process = start(many, out)
        # A shard later, so that each kill meets another part of the work, and then at any moment.
        until(lambda kill=kill: shards(out) >= kill, process)
        time.sleep(moments.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert shards(out) >= there
        there = shards(out)
    assert 0 < there < 8
    process = start(many, out)
    _, remarks = process.communicate(timeout=300)
    assert process.returncode == 1, remarks
    assert f"going on: {3 * there} of 24 photos are done" in remarks
    assert "24 rows, 1 of them with an error" in remarks
    assert rows_of(out) == unbroken
    assert not list(out.glob(".*"))


def test_a_worker_that_dies_is_replaced(many: Path, tmp_path: Path, unbroken: list[Row]) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    until(lambda: shards(out) >= 2, process)
    workers = [each for each in psutil.Process(process.pid).children() if "spawn_main" in each.cmdline()[-2]]
    assert len(workers) == 2
    workers[0].kill()
    _, remarks = process.communicate(timeout=300)
    assert process.returncode == 1, remarks
    assert rows_of(out) == unbroken


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_end_keeps_its_shards(
    many: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start(many, out)
    until(lambda: shards(out) >= 1, process)
    os.killpg(process.pid, sent)
    _, remarks = process.communicate(timeout=60)
    assert process.returncode == code, remarks
    assert "Traceback" not in remarks
    assert 0 < shards(out) < 8
    assert not list(out.glob(".*"))
    assert len(rows_of(out)) == 3 * shards(out)


def run_deadly(out: Path, engine: Any) -> None:
    """Twenty photos, over the fourth of which every process dies."""
    photos = out / "photos"
    photos.mkdir()
    for number in range(20):
        Image.new("RGB", DEADLY_SIZE if number == 3 else (40, 30)).save(photos / f"{number:02d}.png")
    job = Job(load_deadly, Task.SOD, False, 5, None, None)
    outcome = run_batch(
        settings(photos, shard_rows=64),
        Folder(str(out / "out")),
        partial(engine, job=job),
        Console(quiet=True),
    )
    assert outcome == Outcome(photos=20, errors=1, before=0)
    rows = rows_of(out / "out")
    assert [row["error"] is None for row in rows] == [number != 3 for number in range(20)]
    assert "died" in rows[3]["error"]
    assert rows[4]["expressions"] == ["the lot"]


def test_only_the_photo_over_which_workers_die_is_an_error(tmp_path: Path) -> None:
    run_deadly(tmp_path, partial(run_local, workers=1))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # Ray's actors would be the last to run on a busy machine
        patch.setenv("PYTHONPATH", str(TESTS))  # where actors find load_deadly
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(**node)
        yield cluster.address
        cluster.shutdown()


def test_only_the_photo_over_which_actors_die_is_an_error(tmp_path: Path, cluster: str) -> None:
    from saliency_r1.batch.on_ray import RayOptions, run_on_ray

    run_deadly(tmp_path, partial(run_on_ray, options=RayOptions(cluster, 1, 1, 0)))


def test_no_cluster_at_the_address_is_one_line(tmp_path: Path, folder: Path) -> None:
    process = start(folder, tmp_path / "out", "--engine", "ray", "--address", "127.0.0.1:1")
    _, remarks = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Ray: no cluster at 127.0.0.1:1" in remarks
    assert "Traceback" not in remarks


def test_on_a_cluster_of_two_nodes_with_an_actor_killed(
    many: Path, tmp_path: Path, unbroken: list[Row], cluster: str
) -> None:
    out = tmp_path / "out"
    process = start(many, out, "--engine", "ray", "--address", cluster)
    until(lambda: shards(out) >= 2, process)
    actors = [
        each
        for each in psutil.process_iter(["cmdline"])
        if str((each.info["cmdline"] or [""])[0]).startswith("ray::MapWorker")
    ]
    assert len(actors) == 2
    actors[0].kill()
    _, remarks = process.communicate(timeout=300)
    assert process.returncode == 1, remarks
    assert rows_of(out) == unbroken
    (out / "part-00003.parquet").unlink()
    process = start(many, out)  # what Ray began goes on without it
    _, remarks = process.communicate(timeout=300)
    assert "going on: 21 of 24 photos are done" in remarks
    assert rows_of(out) == unbroken
