"""What the README shows is what happens."""

import re
import subprocess
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForImageTextToText
from zoo import checkpoint

from avalanche_cit.models import LMM
from avalanche_cit.models.loading import SHIPPED
from avalanche_cit.run_config import STRATEGIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_ten_lines_of_python_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVALANCHE_CIT_CACHE", str(tmp_path))
    block, _ = BLOCKS
    small = block.replace('("mini_cit1")', '("mini_cit1", sizes={"train": 16, "validation": 2, "test": 4})')
    assert small != block
    exec(small, {})
    last = capsys.readouterr().out.strip().splitlines()[-7:]
    assert last[0].split() == ["flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa"]
    assert [line.split()[0] for line in last[1:]] == ["initial", "flickr30k", "textcaps", "vqav2", "ocrvqa", "gqa"]


def test_a_tuned_model_is_handed_on(tmp_path, tmp_path_factory, monkeypatch):
    pushed = []
    monkeypatch.setattr(LMM, "push_to_hub", lambda self, repo_id: pushed.append(repo_id))
    monkeypatch.chdir(tmp_path)
    folder = checkpoint("qwen2_5_vl", tmp_path_factory)
    _, block = BLOCKS
    exec(block.replace("Qwen/Qwen2.5-VL-3B-Instruct", str(folder)), {"LMM": LMM})
    PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(folder), "tuned")
    assert pushed == ["me/tuned"]


def test_ci_runs_the_readmes_test_command():
    (command,) = re.findall(r"<!-- test command -->\n```bash\n(.*?)\n```", README)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    extract = next(line for line in script.splitlines() if line.startswith("command="))
    shown = subprocess.run(["bash", "-c", f'{extract}; echo "$command"'], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout.strip() == command
    assert script.endswith('eval "$command"\n')


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_strategies_and_models_are_all_named():
    for name in (*STRATEGIES, *SHIPPED):
        assert f"`{name}`" in README
