"""What holds for all tests: transformers shows no bars, as on the command line."""

import os

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
