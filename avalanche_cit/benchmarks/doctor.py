"""Examines the data of a benchmark before anything is trained on it, and lists every problem of every task.

An error keeps a run from finishing or its score from meaning anything: a file that cannot be read, images that are
missing or broken, a sample without a reference. A warning is something to look at: unexpected counts, empty or repeated
questions and answers, test images among the training images, answers longer than what is generated.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas as pd
import pyarrow.compute as pc

from avalanche_cit.benchmarks.benchmark_file import SPLITS, TaskDefinition
from avalanche_cit.benchmarks.images import examine_images
from avalanche_cit.benchmarks.instruction_data import image_paths
from avalanche_cit.benchmarks.load import is_held_out, read_split, reader_options
from avalanche_cit.benchmarks.scenario import strided_indices
from avalanche_cit.benchmarks.task import render
from avalanche_cit.errors import UserError, unknown_name

CountTokens = Callable[[list[str]], list[int]]
"""Returns how many tokens each of some texts has."""

RENDERED = 3
"""Samples of each split that a report shows as the model gets them."""

_MOST_LETTERS = 200


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a split, in one line that names the file, a record and the mend."""

    severity: Literal["error", "warning"]
    split: str
    text: str


@dataclass
class SplitReport:
    """What a split's files hold.

    Attributes:
        files: Each annotation file with its sha256; None for one that cannot be read.
        samples: How many samples there are; None where they could not be read.
        expected: How many there should be, where the benchmark file says it.
        without_image: How many samples have no image.
        several_images: How many samples have more than one.
        found: How many samples have each kind of problem, by its name.
        rendered: A few samples: ``id``, ``prompt`` and ``target``.
    """

    files: dict[str, str | None]
    samples: int | None = None
    expected: int | None = None
    without_image: int = 0
    several_images: int = 0
    found: dict[str, int] = field(default_factory=dict)
    rendered: list[dict[str, str]] = field(default_factory=list)


@dataclass
class TaskReport:
    """What the doctor found out about a task: the splits that have files of their own, and all problems."""

    name: str
    splits: dict[str, SplitReport]
    problems: list[Problem]


def examine_task(
    definition: TaskDefinition,
    *,
    data_root: Path,
    cache_dir: Path,
    scores: Collection[str],
    image_roots: Iterable[Path] = (),
    count_tokens: CountTokens | None = None,
    decode: bool = False,
) -> TaskReport:
    """Examine all splits of a task that have files of their own. Nothing that is wrong with the data is raised.

    Args:
        definition: The task, from `read_benchmark_file`.
        data_root: The folder that the definition's files and folders are relative to.
        cache_dir: The folder for Arrow files; a run finds there what the doctor has read without a problem.
        scores: The names of the scores that exist.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.
        count_tokens: How to measure answers; None: in words.
        decode: Read every image, to find those that cannot be decoded, and the same image under two names.

    Example:
        >>> report = examine_task(benchmark.definitions["vqa"], data_root=Path("data"), cache_dir=Path("cache"),
        ...                       scores=SCORES)
        >>> [problem.text for problem in report.problems]
        ['data/a.json: 3 of 9,009 samples have no image file, the first is sample 17 (data/images/17.jpg); fetch them']
    """
    problems: list[Problem] = []
    if definition.score not in scores:
        problems.append(Problem("error", "", str(unknown_name("score", definition.score, scores))))
    reports, images = {}, {}
    for split in SPLITS:
        if is_held_out(definition, split):
            continue
        annotations = annotation_files(definition, split, data_root)
        report = SplitReport({str(file): checksum(file) for file in annotations})
        report.expected = definition.expected.get(split)
        reports[split] = report
        read = partial(
            read_split,
            definition,
            split,
            data_root=data_root,
            cache_dir=cache_dir,
            image_roots=tuple(image_roots),
        )
        try:
            try:
                data = read()
            except UserError:
                data = read(keep_missing_images=True)  # fails again unless missing images were all that was wrong
        except UserError as error:
            problems.append(Problem("error", split, str(error)))
            continue
        samples = sample_frame(data)
        pictures = examine_images(data, f"{definition.name}, {split}") if decode else image_paths(data).to_frame("file")
        per_sample = pictures.index.value_counts()
        report.without_image = len(samples) - len(per_sample)
        report.several_images = int((per_sample > 1).sum())
        where = str(annotations[0]) if annotations else f"task '{definition.name}', split '{split}'"
        problems += _examine_split(samples, pictures, report, definition, split, where, count_tokens)
        report.rendered = rendered_samples(data, definition.prompt)
        images[split] = pictures["content" if decode else "file"].dropna()
    for split in ("validation", "test"):
        if "train" in images and split in images:
            problems += _overlap(images["train"], images[split], reports[split], split)
    return TaskReport(definition.name, reports, problems)


def exit_status(reports: Iterable[TaskReport]) -> int:
    """Return 0 where nothing was found, 1 where warnings were, 2 where errors were."""
    found = {problem.severity for report in reports for problem in report.problems}
    return 2 if "error" in found else 1 if found else 0


def annotation_files(definition: TaskDefinition, split: str, data_root: Path) -> list[Path]:
    """Return the files that a split is read from, existing or not, all but the images."""
    options = reader_options(definition, split, data_root)
    return [value for option, value in options.items() if isinstance(value, Path) and option != "images"]


def checksum(file: Path) -> str | None:
    """Return the sha256 of a file; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def sample_frame(data: datasets.Dataset) -> pd.DataFrame:
    """Return what the doctor looks at, a row per sample: ``id``, ``image`` (its files, as one text; missing where the
    data hold one), ``instruction``, ``target``, ``references`` (how many)."""
    table = data.select_columns(["id", "instruction", "target", "references"]).with_format("arrow")[:]
    texts = table.select(["id", "instruction", "target"]).to_pandas()
    files: list[list[Any]] = [[] for _ in range(len(texts))]
    for place, path in image_paths(data).items():
        files[place].append(path)
    images = [None if any(pd.isna(of_sample)) else ", ".join(of_sample) for of_sample in files]
    return texts.assign(image=images, references=pc.list_value_length(table["references"]).to_pandas())


def missing_files(paths: pd.Series) -> pd.Series:
    """Say of each path whether there is no such file. Every folder is listed once."""
    places = [os.path.split(path) for path in paths.dropna().unique()]
    listings = {folder: _names_in(folder) for folder in {folder for folder, _ in places}}
    return paths.isin([os.path.join(folder, name) for folder, name in places if name not in listings[folder]])


def rendered_samples(data: datasets.Dataset, prompt: str) -> list[dict[str, str]]:
    """Return a few samples, evenly spread, as the model gets them."""
    texts = data.select_columns(["id", "instruction", "target", "choices"])
    rows = [texts[i] for i in strided_indices(len(texts), RENDERED)]
    return [{"id": row["id"], "prompt": render(prompt, row), "target": row["target"]} for row in rows]


# --- The checks -------------------------------------------------------------------------------------------------------


def _examine_split(
    samples: pd.DataFrame,
    images: pd.DataFrame,
    report: SplitReport,
    definition: TaskDefinition,
    split: str,
    where: str,
    count_tokens: CountTokens | None,
) -> list[Problem]:
    problems = []
    report.samples = len(samples)
    asks = "{question}" in definition.prompt

    def check(severity: Literal["error", "warning"], name: str, bad: pd.Series, what: str, mend: str) -> None:
        """Note how many samples are bad, and the first of them."""
        report.found[name] = int(bad.sum())
        if report.found[name]:
            first = samples[bad].iloc[0]
            detail = f" ({_shortened(first[_SHOWN[name]])})" if name in _SHOWN else ""
            text = f"{where}: {report.found[name]:,} of {len(samples):,} samples {what}"
            problems.append(Problem(severity, split, f"{text}, the first is sample {first['id']}{detail}; {mend}"))

    if report.expected not in (None, report.samples):
        text = f"{where}: holds {report.samples:,} samples, {report.expected:,} are expected; check the file's version"
        problems.append(Problem("warning", split, text))

    def check_images(name: str, bad: pd.Series, shown: pd.Series, what: str, mend: str) -> None:
        """Note the samples of images that are bad."""
        first = shown[bad][~images.index[bad].duplicated()]
        samples[_SHOWN[name]] = first  # of each sample its first bad image
        check("error", name, samples[_SHOWN[name]].notna(), what, mend)

    missing = missing_files(images["file"])
    check_images("missing_images", missing, images["file"], "have no image file", "fetch them, or check 'images'")
    if "problem" in images:
        unreadable = images["problem"].notna() & ~missing
        pairs = zip(images["file"], images["problem"], strict=True)
        shown = pd.Series([f"{file}: {problem}" for file, problem in pairs], images.index, dtype=object)
        what = "have an image that cannot be read"
        check_images("unreadable_images", unreadable, shown, what, "fetch the file again")
    none = samples["references"].fillna(0) == 0
    check("error", "no_reference", none, "have no answer to be scored against", "remove them, or add an answer")
    if asks:
        empty = samples["instruction"].str.strip() == ""
        check("warning", "empty_questions", empty, "ask nothing", "remove them, or mend the file")
    check("warning", "empty_answers", samples["target"].str.strip() == "", "have an empty answer", "remove them")
    repeated = samples.duplicated(["image", "instruction"] if asks else ["image", "target"]) & samples["image"].notna()
    what = "repeat an earlier question on the same image" if asks else "repeat an earlier answer to the same image"
    check("warning", "duplicates", repeated, what, "remove them, unless they are meant to count twice")
    unit = "words" if count_tokens is None else "tokens"
    long = lengths(samples["target"], count_tokens) > definition.max_new_tokens
    what = f"have an answer of more than {definition.max_new_tokens} {unit}, the most that is generated"
    check("warning", "long_answers", long, what, "raise max_new_tokens, or leave it so knowingly")
    return problems


_SHOWN = {
    "missing_images": "missing_image",
    "unreadable_images": "unreadable_image",
    "duplicates": "target",
    "long_answers": "target",
}
"""The column that shows what is wrong with a sample, by the name of the problem."""


def lengths(texts: pd.Series, count_tokens: CountTokens | None) -> pd.Series:
    """Return the length of each text, in tokens or, without a way to count them, in words."""
    if count_tokens is None:
        return texts.str.split().str.len()
    distinct = texts.unique().tolist()
    return texts.map(dict(zip(distinct, count_tokens(distinct), strict=True)))


def _overlap(train: pd.Series, other: pd.Series, report: SplitReport, split: str) -> list[Problem]:
    shared = pd.Index(other.unique()).intersection(pd.Index(train.unique()))
    report.found["images_in_train"] = len(shared)
    if not len(shared):
        return []
    file = next(iter(report.files), "the data")
    text = f"{file}: {len(shared):,} of {other.nunique():,} images are training images too, the first {shared[0]}"
    return [Problem("warning", split, f"{text}; scores on them are no test: leave them out of one split")]


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]} ..."
