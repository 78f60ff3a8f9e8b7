"""How many examples the property tests of the ONNX backend draw: few, for each exports and opens a session."""

import os

import hypothesis

FEW = hypothesis.settings(max_examples=300 if os.environ.get("XLAPASS_SWEEP") == "1" else 5)
