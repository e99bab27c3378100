"""For schemathesis: what the document calls binary are photos."""

import schemathesis
from hypothesis import strategies as st

from running_server import photo

schemathesis.openapi.format("binary", st.sampled_from([photo(side=48), photo("coffee.png", 48, "PNG")]))
