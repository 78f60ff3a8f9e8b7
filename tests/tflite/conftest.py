"""Where the tests of the TFLite backend find its engines."""

import pytest

pytest.importorskip("litert_converter", reason="the tflite extra is not installed")
pytest.importorskip("ai_edge_litert", reason="the tflite extra is not installed")
