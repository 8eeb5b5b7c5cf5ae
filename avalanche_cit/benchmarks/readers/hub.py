"""Data sets of the Hugging Face Hub, or folders that ``datasets`` can load, with their columns named in YAML.

Format: https://huggingface.co/docs/datasets/loading. In a benchmark file::

    reader: hub
    splits:
      train:
        repository: derek-thomas/ScienceQA
        split: train
        skip_text_only: true
        columns: {image: image, instruction: question, target: answer, choices: choices}
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import datasets
from huggingface_hub.constants import HF_HUB_CACHE

from avalanche_cit.benchmarks.instruction_data import Sample
from avalanche_cit.benchmarks.readers._common import ImageFolder, build, letter, most_frequent
from avalanche_cit.benchmarks.readers._records import Record
from avalanche_cit.benchmarks.readers._tables import ROWS_AT_ONCE, arrow_errors, one_line, stored_image
from avalanche_cit.errors import UserError, unknown_name

VERSION = 1

_FIELDS = ("id", "image", "instruction", "target", "references", "choices")
_JSON = (".json", ".jsonl", ".ndjson")
_NULL_ROW = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*\[?\s*null\b|^null\s*$", re.MULTILINE)


def read_hub(
    *,
    task: str,
    columns: Mapping[str, str],
    split: str,
    cache_dir: Path,
    repository: str | None = None,
    folder: Path | None = None,
    config: str | None = None,
    revision: str | None = None,
    images: Path | None = None,
    skip_text_only: bool = False,
    image_roots: Sequence[Path] = (),
) -> datasets.Dataset:
    """Read a data set that ``datasets.load_dataset`` loads, and copy its rows.

    One row per row. ``columns`` says in which column each field of the schema stands; ``image`` must be among them,
    and ``target``, ``references`` or both. What is left away becomes: ``id`` the row's number, from 0; ``instruction``
    empty, as for captions; ``target`` the most frequent of the references (of several, the first); ``references`` the
    target alone; ``choices`` null. A target that is a class label becomes the class's name, and one that counts the
    choices, from 0, the letter of its choice. An image is encoded in its row, or the path of a file.

    Args:
        task: The task's name, for the column ``task``.
        columns: The column of each field: ``id``, ``image``, ``instruction``, ``target``, ``references``, ``choices``.
        split: The split's name in the data set, or a part of it such as ``train[:10%]``.
        cache_dir: The folder for Arrow files, and for those of ``datasets``.
        repository: The data set's name on the Hub, such as ``derek-thomas/ScienceQA``. Either this or ``folder``.
        folder: A folder of files that ``datasets`` loads: Parquet, JSON, CSV, or images with their ``metadata.jsonl``.
        config: The data set's configuration, where it has several.
        revision: The commit, tag or branch on the Hub; name a commit for results that stay comparable.
        images: The folder that paths of images are relative to, if not ``folder``.
        skip_text_only: Leave out rows without an image, which are an error otherwise.
        image_roots: Further folders that absolute image paths, and ones with ``..``, may lead to.

    Returns:
        A data set with the columns of `instruction_data.FEATURES`.

    Raises:
        UserError: The data set cannot be loaded, a column is not there, an image is missing, or a row is malformed.

    Example:
        >>> read_hub(task="mine", folder=Path("mine"), split="train", cache_dir=Path("cache"),
        ...          columns={"image": "image", "instruction": "question", "target": "answer"})["target"][0]
        'cat'
    """
    _check_columns(columns, f"task '{task}', reader 'hub'")
    if (repository is None) == (folder is None):
        raise UserError(f"task '{task}', reader 'hub': give either 'repository' or 'folder'")
    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check 'folder'")
    if folder is not None:
        _refuse_null_rows(folder)
    source = Path(repository or "") if folder is None else folder
    data = _load(source, config, split, revision, cache_dir)
    for column in columns.values():
        if column not in data.column_names:
            raise UserError(f"{source}: {unknown_name('column', column, data.column_names)}")
    places = _places(images, folder, image_roots)
    return build(
        partial(_samples, task, places, source, data, columns, skip_text_only),
        reader="hub",
        version=VERSION,
        task=task,
        images=places,
        columns=json.dumps(dict(columns), sort_keys=True),
        split=split,
        skip_text_only=skip_text_only,
        sources=[Path(file["filename"]) for file in data.cache_files],
        cache_dir=cache_dir,
        origin=str(source),
    )


def _check_columns(columns: Mapping[str, str], where: str) -> None:
    for field in columns:
        if field not in _FIELDS:
            raise UserError(f"{where}, 'columns': {unknown_name('field', field, _FIELDS)}")
    if "image" not in columns or not {"target", "references"} & columns.keys():
        raise UserError(f"{where}: 'columns' must name the columns of 'image', and of 'target' or 'references'")


def _refuse_null_rows(folder: Path) -> None:
    """Refuse JSON files with a row that is null, which ends the process inside Arrow (apache/arrow#47409)."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _JSON or not path.is_file() or not path.stat().st_size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if found := _NULL_ROW.search(content):
                line = content[: found.end()].count(b"\n") + 1
                raise UserError(f"{path}, line {line}: the row is null; it must be a JSON object")


def _load(source: Path, config: str | None, split: str, revision: str | None, cache_dir: Path) -> datasets.Dataset:
    cache = str(cache_dir.absolute() / "datasets")
    verbosity = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs of an error is in the error
    try:
        return datasets.load_dataset(str(source), config, split=split, revision=revision, cache_dir=cache)
    except Exception as error:  # whatever the library of the files' format raises, and the network
        reason = one_line(error.__cause__ or error)
        raise UserError(
            f"{source}: the split '{split}' cannot be loaded ({reason}); check the name, the split and the files"
        ) from error
    finally:
        datasets.logging.set_verbosity(verbosity)


def _places(images: Path | None, folder: Path | None, image_roots: Sequence[Path]) -> ImageFolder | None:
    """Return where files of images are: ``datasets`` gives their absolute paths, in the folder or the Hub's cache."""
    if images is not None:
        return ImageFolder(images, image_roots=image_roots)
    loaded_from = Path(HF_HUB_CACHE) if folder is None else folder
    if not loaded_from.is_dir():
        return None
    return ImageFolder(loaded_from, image_roots=[*image_roots, loaded_from])


def _samples(
    task: str,
    places: ImageFolder | None,
    source: Path,
    data: datasets.Dataset,
    columns: Mapping[str, str],
    skip_text_only: bool,
) -> Iterator[Sample]:
    label = data.features[columns["target"]] if "target" in columns else None
    class_names = label.names if isinstance(label, datasets.ClassLabel) else None
    for number, row in enumerate(_rows(data.select_columns(sorted(set(columns.values()))), source)):
        fields: dict[str, object] = {field: row[column] for field, column in columns.items()}
        record = Record(fields, source, f"row {number}", "id")
        if fields["image"] is None and skip_text_only:
            continue
        if fields["image"] is None:
            raise record.error("has no image; leave such rows out with 'skip_text_only: true'")
        choices = record.texts("choices") if fields.get("choices") is not None else None
        references = record.texts("references") if "references" in columns else []
        target = _target(record, class_names, choices) if "target" in columns else most_frequent(references)
        yield Sample(
            id=str(record.identity("id")) if "id" in columns else str(number),
            image=stored_image(fields["image"], "image", record, places),
            instruction=record.text("instruction") if "instruction" in columns else "",
            target=target,
            references=references or [target],
            task=task,
            choices=choices,
        )


def _rows(data: datasets.Dataset, source: Path) -> Iterator[dict[str, object]]:
    with arrow_errors(source):
        for table in data.with_format("arrow").iter(ROWS_AT_ONCE):
            yield from table.to_pylist()


def _target(record: Record, class_names: Sequence[str] | None, choices: Sequence[str] | None) -> str:
    target = record.identity("target")
    if isinstance(target, str):
        return target
    if class_names is not None:
        if not 0 <= target < len(class_names):
            raise record.error(f"the class label is {target}; there are {len(class_names)} classes, from 0")
        return class_names[target]
    return letter(target, choices, record) if choices is not None else str(target)
