"""A newcomer's path: the README's code blocks run as they stand, in order, in one namespace."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_readme_code_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 5
    namespace: dict = {}
    for k, block in enumerate(blocks):
        file = tmp_path / f"block{k}.py"  # `dl.elementwise` reads the source
        file.write_text(block)
        exec(compile(block, str(file), "exec"), namespace)


def test_readme_names_files_that_exist():
    named = re.findall(r"`((?:docs|examples|csrc)/[\w./]+|\w+\.md)`", README.read_text())
    assert named
    assert not [name for name in named if not (README.parent / name).exists()]
