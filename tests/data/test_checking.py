"""`saliency-r1 data check`: what is odd about a data set is found, and named with a fix."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from drawn_data import draw_groups, draw_pairs, save, scene
from saliency_r1.cli import main
from saliency_r1.data.checking import Fault, check_data


def faults(root: Path, against: Path | None = None) -> dict[Fault, set[str]]:
    found: dict[Fault, set[str]] = {}
    for finding in check_data(root, against=against).findings:
        found.setdefault(finding.fault, set()).add(finding.name)
    return found


def test_a_good_set_has_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_pairs(tmp_path / "mine", 6)
    assert main(["data", "check", str(tmp_path / "mine"), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "6 photos with truth, salient object detection" in printed
    assert "nothing is wrong" in printed


def test_every_fault_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "ECSSD"
    draw_pairs(root, 12)
    images, masks = root / "images", root / "masks"
    (images / "0001.jpg").write_bytes((images / "0001.jpg").read_bytes()[:300])
    (masks / "0002.png").write_bytes(b"no picture")
    save(Image.open(masks / "0003.png").resize((30, 20), Image.Resampling.NEAREST), masks / "0003.png")
    mask = np.asarray(Image.open(masks / "0004.png"))
    save(Image.fromarray(mask * 0), masks / "0004.png")
    save(Image.fromarray(mask * 0 + 255), masks / "0005.png")
    save(Image.fromarray(mask // 255), masks / "0006.png")
    save(Image.fromarray(mask // 2 + 40), masks / "0007.png")
    shutil.copy(images / "0008.jpg", images / "0009.jpg")
    Image.open(images / "0010.jpg").save(images / "0011.jpg", quality=40)
    found = faults(root)
    assert found[Fault.UNREADABLE_PHOTO] == {"0001"}
    assert found[Fault.UNREADABLE_MASK] == {"0002"}
    assert found[Fault.SIZE] == {"0003"}
    assert found[Fault.EMPTY] == {"0004"}
    assert found[Fault.LOW] == {"0006"}
    assert found[Fault.FULL] == {"0005"}
    assert found[Fault.NON_BINARY] == {"0007"}
    assert found[Fault.DUPLICATE] == {"0008"}
    assert found[Fault.NEAR_DUPLICATE] == {"0010"}
    assert main(["data", "check", str(root), "--workers", "0"]) == 1
    printed = capsys.readouterr().out
    assert "NOT as expected, 1,000 (all)" in printed
    assert "largest value 1" in printed
    for fault in found:
        assert fault.fix in printed


def test_photos_of_a_second_set_are_found(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "test", 8)
    train = tmp_path / "train"
    for seed in range(100, 110):
        save(scene(seed)[0], train / f"{seed}.jpg")
    assert faults(tmp_path / "test", train) == {}
    shutil.copy(tmp_path / "test" / "images" / "0003.jpg", train / "other-name.jpg")
    Image.open(tmp_path / "test" / "images" / "0005.jpg").resize((120, 90)).save(train / "z.jpg", quality=60)
    found = faults(tmp_path / "test", train)
    assert found == {Fault.AGAINST: {"0003"}, Fault.NEAR_AGAINST: {"0005"}}


def test_near_duplicates_of_real_photos(tmp_path: Path) -> None:
    """Scaled, recompressed, brightened: the same photo. Another photo: not."""
    for name, photo in (("cat", data.chelsea()), ("cup", data.coffee()), ("rocket", data.rocket())):
        picture = Image.fromarray(photo)
        save(picture, tmp_path / f"{name}.jpg")
        small = picture.resize((picture.width // 3, picture.height // 3))
        small.save(tmp_path / f"{name}-small.jpg", quality=40)
        picture.point([min(255, round(1.15 * value) + 5) for value in range(256)] * 3).save(
            tmp_path / f"{name}-bright.png"
        )
    draw_pairs(tmp_path / "set", 2)
    for name in ("cat", "cup", "rocket"):
        shutil.copy(tmp_path / f"{name}.jpg", tmp_path / "set" / "images" / f"{name}.jpg")
        size = Image.open(tmp_path / f"{name}.jpg").size
        save(Image.new("L", size, 255), tmp_path / "set" / "masks" / f"{name}.png")
    (tmp_path / "train").mkdir()
    for path in tmp_path.glob("*-*"):
        path.rename(tmp_path / "train" / path.name)
    pairs = {
        (finding.name, finding.detail)
        for finding in check_data(tmp_path / "set", against=tmp_path / "train").findings
        if finding.fault is Fault.NEAR_AGAINST
    }
    assert pairs == {
        (name, f"= {name}-{kind}") for name in ("cat", "cup", "rocket") for kind in ("small", "bright")
    }


def test_groups_are_counted_against_the_benchmark(tmp_path: Path) -> None:
    draw_groups(tmp_path / "CoCA" / "image", tmp_path / "CoCA" / "gt", {"cat": 2, "dog": 2})
    checked = check_data(tmp_path / "CoCA")
    assert (checked.photos, checked.groups, checked.as_expected) == (4, 2, False)


def test_workers_find_the_same(tmp_path: Path) -> None:
    draw_pairs(tmp_path, 45)
    shutil.copy(tmp_path / "images" / "0000.jpg", tmp_path / "images" / "0044.jpg")
    assert check_data(tmp_path, workers=2) == check_data(tmp_path, workers=0)


@pytest.mark.parametrize("content", [{}, {"images": 3}])
def test_no_data_set_is_bad_usage(
    content: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in content:
        (tmp_path / folder).mkdir()
    assert main(["data", "check", str(tmp_path)]) == 2
    assert "expected a folder of pictures" in capsys.readouterr().err
