"""What a file says is never executed: not as code, not as a pickle, not as markup, not as more memory than there is."""

import ast
import html
import io
import json
import pickle
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from avalanche_cit.benchmarks.benchmark_file import read_benchmark_file
from avalanche_cit.benchmarks.collator import decode_images
from avalanche_cit.benchmarks.images import UnreadableImageError, decoded
from avalanche_cit.benchmarks.readers import READERS
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.benchmarks.task import Task
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix_file import MatrixFile
from avalanche_cit.evaluation.matrix_import import read_csv
from avalanche_cit.evaluation.predictions_file import read_predictions
from avalanche_cit.logging.report import write_report
from avalanche_cit.logging.run_directory import RunDirectory
from avalanche_cit.models import LMM

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("avalanche_cit", "experiments") for path in (ROOT / folder).rglob("*.py"))

# --- The code ---------------------------------------------------------------------------------------------------------

PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas.read_pickle"}
HARMLESS = {"pickle.UnpicklingError"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"}
CALLS |= {"yaml.unsafe_load_all", "yaml.full_load_all", "pd.read_pickle", "pandas.read_pickle"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}


def dangers(source: str) -> Iterator[str]:
    """Find imports and calls by which a file that is read could execute something."""
    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    safe = SAFE_LOADERS | {c.name for c in classes if [dotted(b).split(".")[-1] for b in c.bases] == ["SafeLoader"]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for name in (f"{module}{alias.name}" for alias in node.names):
                if name.split(".")[0] in PICKLING | {"pandas.read_pickle"} and name not in HARMLESS:
                    yield f"line {node.lineno}: import of {name}"
        if not isinstance(node, ast.Call):
            continue
        name, options = dotted(node.func), {word.arg: word.value for word in node.keywords}
        if name in CALLS:
            yield f"line {node.lineno}: {name}"
        if name == "torch.load" and not is_true(options.get("weights_only")):
            yield f"line {node.lineno}: torch.load without weights_only=True"
        if is_true(options.get("allow_pickle")) or is_true(options.get("shell")):
            yield f"line {node.lineno}: {name} with allow_pickle or shell"
        if name == "yaml.load":
            loader = options.get("Loader", node.args[1] if len(node.args) > 1 else None)
            if loader is None or dotted(loader).split(".")[-1] not in safe:
                yield f"line {node.lineno}: yaml.load without a safe loader"


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "()"


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("import pickle", 1),
        ("import dill as d, json", 1),
        ("from pickle import loads", 1),
        ("from pickle import UnpicklingError", 0),
        ("eval(text)", 1),
        ("def f():\n    exec(open(path).read())", 1),
        ("model.eval()\nre.compile(text)", 0),
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("yaml.load(text)", 1),
        ("yaml.load(text, yaml.Loader)", 1),
        ("yaml.load(text, Loader=yaml.FullLoader)", 1),
        ("class L(yaml.SafeLoader): pass\nyaml.load(text, Loader=L)", 0),
        ("class L(yaml.Loader): pass\nyaml.load(text, Loader=L)", 1),
        ("yaml.unsafe_load(text)", 1),
        ("np.load(path, allow_pickle=True)", 1),
        ("subprocess.run(text, shell=True)", 1),
    ],
)
def test_dangerous_code_is_found(source: str, number: int) -> None:
    assert len(list(dangers(source))) == number


def test_no_file_that_is_read_can_execute_anything() -> None:
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): list(dangers(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {name: problems for name, problems in found.items() if problems} == {}


# --- Booby traps ------------------------------------------------------------------------------------------------------


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sprung,)


@pytest.fixture
def sprung(tmp_path: Path) -> Iterator[Path]:
    """The file that a trap touches; it must not be there at the end."""
    sprung = tmp_path / "sprung"
    yield sprung
    assert not sprung.exists()


@pytest.fixture(params=["pickle", "torch"])
def trap(request: pytest.FixtureRequest, sprung: Path) -> bytes:
    """A booby-trapped file, plain or as torch saves weights; that it works is tried out first."""
    if request.param == "pickle":
        content = pickle.dumps(Trap(sprung), protocol=2)
        pickle.loads(content)
    else:
        stream = io.BytesIO()
        torch.save({"weight": Trap(sprung)}, stream)
        content = stream.getvalue()
        torch.load(io.BytesIO(content), weights_only=False)
    assert sprung.exists()
    sprung.unlink()
    return content


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_trapped_model_is_refused(trap: bytes, name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["t5"], tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(trap)
    with pytest.raises(UserError, match="cannot load the model") as caught:
        LMM.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert "trust" not in str(caught.value)  # torch would say how to open it all the same


@pytest.mark.parametrize("reader", ["json_lines", "parquet", "llava_json", "gqa"])
def test_trapped_data_are_refused(trap: bytes, reader: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").write_bytes(trap)
    options = {"images": tmp_path / "images", "annotations": tmp_path / "annotations", "cache_dir": tmp_path / "cache"}
    with pytest.raises(UserError, match="annotations"):
        READERS[reader](task="mine", **options)


def test_a_trapped_image_is_refused(trap: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        decoded({"path": None, "bytes": trap})


RUN = {
    "matrix.json": MatrixFile.read,
    "predictions.jsonl": read_predictions,
    "matrix.csv": read_csv,
    "benchmark.yaml": read_benchmark_file,
}


@pytest.mark.parametrize("name", RUN)
def test_trapped_files_of_a_run_are_refused(trap: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(trap)
    with pytest.raises(UserError, match=name):
        RUN[name](tmp_path / name)


TRAPPED_YAML = "!!python/object/apply:pathlib.Path.touch\nargs: [!!python/object/apply:pathlib.Path [{sprung}]]\n"


def test_yaml_makes_no_objects(sprung: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(TRAPPED_YAML.format(sprung=sprung))
    (tmp_path / "matrix.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.yaml: broken YAML"):
        RunDirectory(tmp_path, {"strategy": "seqft"})
    with pytest.raises(UserError, match=r"config\.yaml: not usable as YAML|config\.yaml, line 1: not usable as YAML"):
        read_benchmark_file(file)


# --- The report -------------------------------------------------------------------------------------------------------

# without a slash, so that it can be the name of a file
EVIL = "<script>document.title='executed'<!--<img src=x onerror=document.title='executed'>"


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def as_browser_sees(page: Path, tmp_path: Path) -> Elements:
    """Load a page in headless Chromium where there is one, and return what it made of it; else what Python makes."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return Elements(page.read_text(encoding="utf-8"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}", "--dump-dom"]
    done = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    assert "</html>" in done.stdout
    return Elements(done.stdout)


def test_what_is_said_stays_text_in_the_report(tmp_path: Path) -> None:
    """In a task's name, an instruction, an answer, a reference caption, an id, the strategy and the configuration."""
    rows, run = ["initial", EVIL], tmp_path / "run"
    run.mkdir()
    scores: list[list[float | None]] = [[10.0], [60.0]]
    MatrixFile(
        "sequence", EVIL, EVIL, EVIL, 0, [EVIL], [], ["cider_x10"], rows, scores, {"token_f1": scores}, complete=True
    ).write(run)
    (run / "config.yaml").write_text(f"model: {json.dumps(EVIL)}\n")
    line = {"id": EVIL, "instruction": EVIL, "prediction": EVIL, "references": [EVIL], "score": 0.0}
    for row in rows:
        (run / "predictions" / row).mkdir(parents=True)
        (run / "predictions" / row / f"{EVIL}.jsonl").write_text(json.dumps(line))
    write_report([run], run / "report.html")

    page = as_browser_sees(run / "report.html", tmp_path)

    assert "script" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.text.count(EVIL) >= 8
    assert "executed" not in page.text.replace(EVIL, "")

    raw = tmp_path / "raw.html"  # what the same looks like where it is not escaped
    raw.write_text(html.unescape((run / "report.html").read_text(encoding="utf-8")), encoding="utf-8")
    assert "script" in as_browser_sees(raw, tmp_path).tags


# --- Images -----------------------------------------------------------------------------------------------------------


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG whose header promises so many pixels, with further chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" * 10_000_000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "JPEG")
    return stream.getvalue()


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "pixels": (lambda: png(60_000, 60_000), "could be decompression bomb"),
    "text": (
        lambda: png(8, 8, (b"zTXt", b"comment\0\0" + zlib.compress(b"a" * 100_000_000))),
        "Decompressed data too large",
    ),
    "truncated": (lambda: jpeg()[:-200], "truncated"),
    "no image": (lambda: b"%PDF-1.7 no image", "cannot identify image file"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "cannot identify image file"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_images_that_are_none_are_named(name: str, tmp_path: Path, tasks: dict[str, Task]) -> None:
    content, reason = BOMBS[name]
    file = tmp_path / "image"
    file.write_bytes(content())
    assert file.stat().st_size < 200_000
    row = {"id": "q7", "image": {"path": str(file), "bytes": None}, "more_images": None}
    with pytest.raises(UserError) as caught:
        decode_images(Example(tasks["colour"], row))
    said = str(caught.value)
    assert said.startswith(f"task 'colour', sample 'q7': cannot read the image {file}: ")
    assert reason in said
    assert "\n" not in said
