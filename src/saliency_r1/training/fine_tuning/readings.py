"""Readings of the nano policy of what a photo shows, fitted on kept features before it learns to write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saliency_r1.data.coco_json import find_json, read_coco
from saliency_r1.data.layouts import load_splits
from saliency_r1.data.true_instances import InstanceImage
from saliency_r1.errors import SaliencyError
from saliency_r1.tasks import Task
from saliency_r1.training.features import FeatureCache, Key
from saliency_r1.training.fine_tuning.fit_foreground import fit_foreground
from saliency_r1.training.fine_tuning.fit_instances import InstanceTruth, fit_instances, right_counts
from saliency_r1.training.fine_tuning.fit_names import calibrate, fit_names, named_photos, read_regions
from saliency_r1.training.fine_tuning.fitting import Fitting
from saliency_r1.training.fine_tuning.nano_recipe import SFTRecipe
from saliency_r1.writing.sft_set import SFTExample, path_from


def fit_readings(
    recipe: SFTRecipe,
    model: Any,
    processor: Any,
    cache: FeatureCache,
    train: Sequence[SFTExample],
    validation: Sequence[SFTExample],
) -> None:
    """Fit what the policy sees of the salient region, of single objects and of names, as the recipe asks.

    Args:
        recipe: what to fit, and on which photos.
        model: the policy; its readings are changed in place, and `config.name_threshold` with the names.
        processor: its processor.
        cache: holds the features of the photos of both sets; those of other pictures are added.
        train: the examples to train on.
        validation: held-out examples.

    Raises:
        SaliencyError: for data that cannot be read.
    """
    adapter = model.model.adapter
    if recipe.foreground is not None:
        samples, _ = load_splits(recipe.foreground)
        known = {str(sample.image.relative_to(recipe.image_root)): sample.mask for sample in samples}
        masks = {key: mask for key in cache.photos if (mask := known.get(key[0]))}
        overlap = fit_foreground(adapter, cache, masks, Fitting(1500, seed=recipe.seed))
        print(f"The foreground was fitted on {len(masks)} pictures: IoU {overlap:.3f}", flush=True)
    if recipe.instances:
        for title, examples in (("training", train), ("held-out", validation)):
            maps = _instance_maps(examples, recipe.image_root)
            more = instance_pictures(recipe) if title == "training" else {}
            truth = InstanceTruth.read(maps | more, model.config.cells)
            if title == "training":
                cache.add(more)
                fit_instances(adapter, cache, truth, Fitting(recipe.instance_steps, seed=recipe.seed))
            if truth.keys:
                share = right_counts(adapter, cache, truth)
                count = len(truth.keys)
                print(f"The instance map counts {share:.3f} of {count} {title} pictures right", flush=True)
    if recipe.names is not None:  # read where the policy sees what is salient
        _fit_names(recipe, model, processor)


def _fit_names(recipe: SFTRecipe, model: Any, processor: Any) -> None:
    reader = model.model.adapter.names
    found = []
    for split in ("train", "validation"):
        photos = named_photos(recipe.named_photos, split)
        assert recipe.features is not None
        found.append(read_regions(model, processor, photos, recipe.features / f"names-{split}.npz"))
    if not found[0].labels:
        print("No photo has a name: the names stay as they are.", flush=True)
        return
    fit_names(reader, found[0], seed=recipe.seed)
    chosen = calibrate(reader, found[1])
    model.config.name_threshold = reader.threshold
    print(
        f"The names were fitted on {len(found[0].labels)} regions. Of {len(found[1].labels)} held-out ones "
        f"{chosen['true']:.3f} of the words are true and {chosen['unnamed']:.3f} have none, at the threshold "
        f"{chosen['threshold']:.2f} and the temperature {chosen['temperature']:.2f}",
        flush=True,
    )


def _instance_maps(examples: Sequence[SFTExample], root: Path) -> dict[Key, Path | InstanceImage]:
    """The pictures of SIS examples with an instance map beside them."""
    keys = {key for example in examples if example.task is Task.SIS for key in example.keys if not key[1]}
    maps = {key: (root / key[0]).with_suffix(".png") for key in keys if not key[0].endswith(".png")}
    return {key: path for key, path in maps.items() if path.is_file()}


def instance_pictures(recipe: SFTRecipe) -> dict[Key, Path | InstanceImage]:
    """The pictures of `instance_data` with their instances, by their paths from `image_root` where they can.

    Raises:
        SaliencyError: if a folder holds no COCO json, or one that cannot be read.
    """
    found: dict[Key, Path | InstanceImage] = {}
    for root in recipe.instance_data:
        path = find_json(root)
        if path is None:
            raise SaliencyError(f"instance_data: {root} holds no COCO json; make scenes with `data scenes`")
        for picture in read_coco(path):
            found[path_from(recipe.image_root, picture.image), False] = picture
    return found
