"""The Python snippets of docs/gpu.md, run in order."""

import re
from pathlib import Path


def test_snippets(capsys):
    text = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 4
    namespace = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/gpu.md", "exec"), namespace)
    assert "sm_90" in capsys.readouterr().out
