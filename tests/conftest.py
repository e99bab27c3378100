"""What holds for all tests: transformers shows no bars, as on the command line; the model with its graphs."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture(scope="session")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with its graphs, as `saliency-r1 export --format onnx` writes it."""
    from saliency_r1.sharing.export import Export, export

    return export(Export("nano", tmp_path_factory.mktemp("onnx") / "model", graphs=True))
