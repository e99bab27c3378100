"""What holds for all tests: a thread for each worker, no bars of transformers, the model with its graphs."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers with a thread for every core starve one another


@pytest.fixture(scope="session")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with its graphs, as `saliency-r1 export --format onnx` writes it."""
    from saliency_r1.sharing.export import Export, export

    return export(Export("nano", tmp_path_factory.mktemp("onnx") / "model", graphs=True))
