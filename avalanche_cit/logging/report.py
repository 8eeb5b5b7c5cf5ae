"""report.html: one run or many as a single page that needs no network, no script and no other file.

`write_report` gathers what the run directories hold; the page itself is `report.html.jinja`, always escaped.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.checked_json import read_json, read_text
from avalanche_cit.evaluation.direct_reference import FinishedRun, direct_scores, refused_references
from avalanche_cit.evaluation.matrix import CONVENTIONS
from avalanche_cit.evaluation.superficial import SUPERFICIAL, superficial_forgetting
from avalanche_cit.logging import charts, plots
from avalanche_cit.logging.examples import Example, choose_examples, picture_file, read_examples
from avalanche_cit.whole_file import write_whole

HEADLINE = ("average_accuracy", "mft", "forgetting_chaudhry", "bwt_gem")
"""The numbers of the first table; all others follow in each run's own."""

NAMES = {
    "average_accuracy": "average accuracy",
    "mft": "MFT",
    "maa": "MAA",
    "a_lower_triangle": "A (lower triangle)",
    "bwt_gem": "BWT (GEM)",
    "bwt_coin": "BWT (CoIN)",
    "bwt_all_pairs": "BWT (all pairs)",
    "bwt_minimum": "BWT (minimum)",
    "forgetting_chaudhry": "forgetting (Chaudhry)",
    "forgetting_first_last": "forgetting (first - last)",
    "fwt_gem": "FWT (GEM)",
    "intransigence": "intransigence",
}
"""How each convention is printed; the keys are those of `CONVENTIONS`."""

_PICTURE_SIZE = 224


@dataclass(frozen=True)
class Line:
    """A line of the first table: a run, or the zero-shot reference."""

    name: str
    anchor: str | None
    seeds: str
    summary: Mapping[str, float | None]
    superficial: float | None
    samples_seen: object
    seconds: object
    note: str
    reference: bool


@dataclass(frozen=True)
class Shown:
    """An example with its picture as a data URI, where the run kept one."""

    example: Example
    picture: str | None


@dataclass(frozen=True)
class TaskAnswers:
    """The examples of one task, and how many of all its samples were forgotten or learned."""

    task: str
    total: int
    forgotten: int
    learned: int
    shown: list[Shown]


class Run:
    """What a run directory holds, as the page wants it.

    Args:
        directory: The run directory; only ``matrix.json`` must be there.
        anchor: Id of the run's section in the page.

    Raises:
        UserError: A file is missing or not what the run directory's contract says.
    """

    def __init__(self, directory: Path, anchor: str) -> None:
        if not (directory / "matrix.json").is_file():
            raise UserError(f"{directory}: no matrix.json here; give the directory that an experiment wrote")
        self.directory = directory
        self.anchor = anchor
        self.finished = FinishedRun.read(directory)
        self.matrix = self.finished.file
        self.provenance = _read_provenance(directory / "provenance.json")
        config = directory / "config.yaml"
        self.config = read_text(config) if config.exists() else ""
        self.top = plots.top_of_scale(self.matrix)
        self.row_labels = [plots.row_label(self.matrix, i) for i in range(len(self.matrix.rows))]
        is_stream = self.matrix.kind == "sequence" and len(self.matrix.rows) > 1
        self.score_charts = charts.score_charts(self.matrix) if is_stream else []
        metrics = directory / "metrics.jsonl"
        self.training_charts = charts.training_charts(metrics) if metrics.exists() else []
        self.answers = [answers for task in self.matrix.tasks if (answers := self._answers(task)) is not None]
        self.direct: list[float | None] | None = None
        self.refused: list[str] = []

    @property
    def title(self) -> str:
        """Strategy and seed."""
        return f"{self.matrix.strategy}, seed {self.matrix.seed}"

    @property
    def start(self) -> tuple[str, str]:
        """Benchmark and model: runs that share them share a part of the first table."""
        return self.matrix.benchmark, self.matrix.model

    def find_direct(self, runs: Sequence[FinishedRun]) -> None:
        """Take DirectFT's scores from the run among these that belongs to this one, if any does."""
        self.direct = direct_scores(self.finished, runs)
        self.refused = refused_references(self.finished, runs)

    def summary(self) -> dict[str, float | None]:
        """Return every convention, intransigence included where DirectFT is among the runs."""
        return self.matrix.summary(self.direct)

    def summary_relative(self) -> dict[str, float | None] | None:
        """Return the same numbers in percent of DirectFT, where it is among the runs."""
        return self.matrix.summary_relative(self.direct) if self.direct else None

    def superficial(self) -> float | None:
        """Return how much of the forgetting is of the form of answers alone, where that is defined."""
        return superficial_forgetting(self.matrix)

    def cell_class(self, row: int, column: int) -> str:
        """Return the CSS classes of a matrix cell."""
        own = ["own"] if plots.is_own_task(self.matrix, row, column) else []
        task0 = ["task0"] if column < len(self.matrix.task0) else []
        return " ".join(own + task0)

    def _answers(self, task: str) -> TaskAnswers | None:
        examples = read_examples(self.directory, task, self.matrix.rows)
        if not examples:
            return None
        pictured = [e for e in examples if picture_file(self.directory, task, e.id).exists()]
        return TaskAnswers(
            task=task,
            total=len(examples),
            forgotten=sum(e.forgotten for e in examples),
            learned=sum(e.learned for e in examples),
            shown=[
                Shown(e, _data_uri(picture_file(self.directory, task, e.id)) if pictured else None)
                for e in choose_examples(pictured or examples)
            ],
        )


def write_report(run_directories: Sequence[Path], output: Path) -> None:
    """Write one self-contained HTML page about one run or many.

    DirectFT runs among them are the reference row of the runs with the same benchmark, model, seed and options, and
    give them intransigence; the zero-shot row comes from the matrices. Pictures are embedded from ``examples/`` in the
    run directories, where the runs kept some.

    Args:
        run_directories: Run directories, finished or not.
        output: The page to write; its folder is made where it is missing.

    Raises:
        UserError: There is no run, or a run directory's file is missing or broken.

    Example:
        >>> write_report([Path("runs/seqft_0"), Path("runs/directft_0")], Path("report.html"))
    """
    if not run_directories:
        raise UserError("a report needs at least one run directory; none was given")
    runs = [Run(directory, anchor=f"run-{number}") for number, directory in enumerate(run_directories, start=1)]
    for run in runs:
        run.find_direct([other.finished for other in runs])
    starts = list(dict.fromkeys(run.start for run in runs))
    page = _environment().get_template("report.html.jinja")
    html = page.render(
        runs=runs,
        groups=[(start, _headline([run for run in runs if run.start == start])) for start in starts],
        headline=HEADLINE,
        has_superficial=any(run.superficial() is not None for run in runs),
        has_intransigence=any(run.direct for run in runs),
        names=NAMES,
        conventions=CONVENTIONS,
        superficial=SUPERFICIAL,
        chart=charts,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    # a broken file may hold half a character, which JSON can escape and UTF-8 cannot write
    write_whole(output, html.encode("utf-8", "replace").decode("utf-8"))


def _headline(runs: Sequence[Run]) -> list[Line]:
    """Return the zero-shot lines, then the reference runs, then the methods in the order given."""
    zero_shot: dict[float, list[int]] = {}
    for run in runs:
        average = run.matrix.matrix[0].mean()
        seeds = zero_shot.setdefault(round(float(average), 6), [])
        if run.matrix.seed not in seeds:
            seeds.append(run.matrix.seed)
    lines = [
        Line(
            name="zero-shot",
            anchor=None,
            seeds=", ".join(str(seed) for seed in sorted(seeds)),
            summary={"average_accuracy": average},
            superficial=None,
            samples_seen=0,
            seconds=None,
            note="the model before any tuning",
            reference=True,
        )
        for average, seeds in zero_shot.items()
        if average == average  # NaN: the initial row was not evaluated
    ]
    notes = {"independent": "each task alone", "joint": "all tasks at once", "sequence": ""}
    for run in sorted(runs, key=lambda run: ["independent", "joint", "sequence"].index(run.matrix.kind)):
        unfinished = "" if run.matrix.complete else f"unfinished, {len(run.matrix.rows)} rows so far"
        lines.append(
            Line(
                name=run.matrix.strategy,
                anchor=run.anchor,
                seeds=str(run.matrix.seed),
                summary=run.summary(),
                superficial=run.superficial(),
                samples_seen=run.provenance.get("samples_seen"),
                seconds=run.provenance.get("wall_time_s"),
                note=", ".join(note for note in (notes[run.matrix.kind], unfinished) if note),
                reference=run.matrix.kind != "sequence",
            )
        )
    return lines


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "duration": _duration, "count": _count, "flat": _flat}
    return environment


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value)


def _duration(value: object) -> str:
    if not isinstance(value, (int, float)):
        return "–"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested objects into (dotted key, text) pairs, in order."""
    if isinstance(value, dict) and value:
        return [
            pair for key, inner in value.items() for pair in _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _read_provenance(file: Path) -> dict[str, Any]:
    provenance = read_json(file) if file.exists() else {}
    if not isinstance(provenance, dict):
        raise UserError(f"{file}: not a JSON object; restore it, or delete it to do without")
    return provenance


def _data_uri(picture: Path) -> str:
    try:
        with Image.open(picture) as image:
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{picture}: cannot be read as an image ({error}); delete it to do without") from None
    small.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
