"""Choose options per strategy by average accuracy on the validation stream, with seeds that no result uses.

    python experiments/tune.py [--benchmark NAME|YAML] [--model NAME|FOLDER] [--strategy NAME ...] [--grids YAML]
        [--seeds N ...] [--further N] [--output DIR] [--quick] [any other option of a run]

Every strategy gets equally many trials, the reference rows included; where the best value lies on the edge of its grid,
the grid is extended (at most --further times). Trials go to DIR/BENCHMARK/MODEL/STRATEGY-OPTION=VALUE-seedN/; finished
ones are used again. Written after every strategy into DIR:

    BENCHMARK-MODEL.yaml            the chosen options, as compare.py takes them:  compare.py --config THIS
    BENCHMARK-MODEL.trials.yaml     every value tried, with its score
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from avalanche_cit.benchmarks.catalogue import find_benchmark
from avalanche_cit.command_line import ConfigFile, Parser, run_main
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.grid_search import Grid, read_grids
from avalanche_cit.models.feature_cache import VisionFeatures
from avalanche_cit.processes import be_alone
from avalanche_cit.run_config import RunConfig, add_run_options, quickened
from avalanche_cit.runner import run

GRIDS = Path(__file__).parent / "configs" / "grids.yaml"


def main() -> None:
    """Try every grid, and write what is best."""
    be_alone()
    parser = make_parser()
    options = parser.parse_args().as_dict()
    options.pop("config", None)
    strategies, file, seeds, most, output, quick = (
        options.pop(name) for name in ("strategy", "grids", "seeds", "further", "output", "quick")
    )
    if not seeds or most < 0:
        raise UserError("give at least one of --seeds, and a --further of at least 0")
    if quick:
        options = quickened(options, parser)
    given = {name: value for name, value in options.items() if value != parser.get_default(name)}
    name = f"{find_benchmark(options['benchmark']).name}-{Path(options['model']).name}"
    trials_folder = output / find_benchmark(options["benchmark"]).name / Path(options["model"]).name
    disable_progress_bar()  # transformers' own, for files that take no time here
    console = Console(highlight=False)
    features = VisionFeatures()
    chosen: dict[str, dict[str, float]] = {}
    trials: dict[str, dict[str, Any]] = {}
    for grid in asked(read_grids(file), strategies):
        base = chosen[grid.start_from] if grid.start_from else {}

        def score(value: float, grid: Grid = grid, base: Mapping[str, float] = base) -> float:
            own = {**options, "strategy": grid.strategy, **base, grid.option: value, "stream": "validation"}
            configs = [RunConfig(**own, seed=seed).resolved() for seed in seeds]
            folder = trials_folder / f"{grid.strategy}-{grid.option}={value:g}"
            return mean_accuracy([(config, Path(f"{folder}-seed{config.seed}")) for config in configs], features)

        scores = {value: score(value) for value in grid.values}
        note = ""
        while (beyond := grid.further(scores)) is not None:
            if len(scores) == len(grid.values) + most:
                note = f"still on the edge after {most} values more"
                break
            try:
                scores[beyond] = score(beyond)
            except UserError as error:  # the edge of what the option may be
                note = f"on the edge of what is possible: {error}"
                break
        best = grid.best(scores)
        chosen[grid.strategy] = {**base, grid.option: best}
        trials[grid.strategy] = {"option": grid.option, "with": dict(base), "chosen": best}
        trials[grid.strategy] |= {"scores": {value: round(scores[value], 2) for value in sorted(scores)}}
        trials[grid.strategy] |= {"note": note} if note else {}
        listed = ", ".join(f"{value:g}: {scores[value]:.1f}" for value in sorted(scores))
        console.print(f"{grid.strategy}: {grid.option} = [bold]{best:g}[/bold]  ({listed}) {note}")
        write(output, name, options, given, seeds, chosen, trials)
    console.print(f"chosen: {output / name}.yaml, tried: {output / name}.trials.yaml")


def make_parser() -> Parser:
    """Return the parser of the command line: the script's own options, and those of a run."""
    parser = Parser(description="Options per strategy, chosen by average accuracy on the validation stream.")
    parser.add_argument("--config", action=ConfigFile, help="YAML file with any of these options")
    parser.add_argument("--strategy", type=str, nargs="*", default=[], help="some of those in --grids (default: all)")
    parser.add_argument("--grids", type=Path, default=GRIDS, help="YAML file of the values to try")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100], help="seeds that no result uses (default: 100)")
    parser.add_argument("--further", type=int, default=4, help="values to add at most where the best is on an edge")
    parser.add_argument("--output", type=Path, default=Path("tuning"), help="where all goes (default: tuning)")
    parser.add_argument("--quick", action="store_true", help="small data, a glance at the whole path")
    add_run_options(parser, skip={"strategy", "seed", "stream"})
    return parser


def asked(grids: Sequence[Grid], strategies: Sequence[str]) -> list[Grid]:
    """Return the grids of some strategies, with those that they start from; all where none is named.

    Raises:
        UserError: A strategy has no grid.
    """
    known = {grid.strategy: grid for grid in grids}
    wanted = set(strategies or known)
    for strategy in strategies:
        if strategy not in known:
            raise unknown_name("strategy of a grid", strategy, known)
    for grid in reversed(grids):
        if grid.strategy in wanted and grid.start_from:
            wanted.add(grid.start_from)
    return [grid for grid in grids if grid.strategy in wanted]


def mean_accuracy(trials: Sequence[tuple[RunConfig, Path]], features: VisionFeatures) -> float:
    """Carry out trials that differ by seed, and return their mean average accuracy; DirectFT's, each task alone."""
    files = [run(config, folder, vision_features=features) for config, folder in trials]
    scores = [file.summary()["mft" if file.kind == "independent" else "average_accuracy"] for file in files]
    return sum(score for score in scores if score is not None) / len(scores)


def write(
    output: Path,
    name: str,
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    seeds: Sequence[int],
    chosen: Mapping[str, Mapping[str, float]],
    trials: Mapping[str, Any],
) -> None:
    """Write the choice as a configuration of compare.py, and the trials beside it."""
    strategies = {strategy: dict(own) for strategy, own in chosen.items()}
    how = f"chosen on the validation stream by average accuracy, seeds {', '.join(map(str, seeds))}"
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    choice = {**plain, "benchmark": [options["benchmark"]], "model": options["model"], "tuning": how}
    for ending, content in ((".yaml", {**choice, "strategies": strategies}), (".trials.yaml", dict(trials))):
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        (output / f"{name}{ending}").write_text(f"# Made by experiments/tune.py\n{text}", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
