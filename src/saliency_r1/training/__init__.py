"""Training stages, all driven by a recipe."""

from __future__ import annotations

import os

# Read when huggingface_hub is first imported: TRL and the hub client would report usage otherwise.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
