"""Grids: which value wins, where a grid goes on, and mistakes in the file."""

from pathlib import Path

import pytest
import yaml

from avalanche_cit.errors import UserError
from avalanche_cit.grid_search import Grid, read_grids
from avalanche_cit.run_config import STRATEGIES

SHIPPED = Path(__file__).parents[1] / "experiments" / "configs" / "grids.yaml"


def test_a_best_value_inside_ends_the_search():
    grid = Grid("seqft", "lr", [1.0, 2.0, 4.0], None)
    scores = {1.0: 10.0, 2.0: 12.0, 4.0: 11.0}

    assert grid.best(scores) == 2.0
    assert grid.further(scores) is None


@pytest.mark.parametrize(
    ("scores", "further"),
    [
        ({1.0: 10.0, 2.0: 12.0, 4.0: 13.0}, 8.0),
        ({1.0: 10.0, 2.0: 9.0, 4.0: 8.0}, 0.5),
        ({1.0: 10.0, 3.0: 11.0, 30.0: 13.0}, 300.0),  # by the ratio at that edge
        ({30.0: 13.0, 3.0: 11.0, 1.0: 14.0}, 0.333),  # whatever the order of the trials
    ],
)
def test_a_best_value_on_the_edge_extends_the_grid(scores, further):
    assert Grid("seqft", "lr", [1.0, 2.0], None).further(scores) == further


def test_of_equal_values_the_most_central_is_best():
    grid = Grid("eproj", "threshold", [0.1, 0.2, 0.4], None)

    assert grid.best({0.1: 5.0, 0.2: 5.0, 0.4: 5.0}) == 0.2
    assert grid.further({0.1: 5.0, 0.2: 5.0, 0.4: 5.0}) is None
    assert grid.best({0.1: 5.0, 0.2: 4.0, 0.4: 5.0}) == 0.1


def test_grids_are_read_in_their_order(tmp_path):
    file = tmp_path / "grids.yaml"
    file.write_text("seqft: {lr: [0.001, 0.01]}\newc: {lambda_: [1, 10], start_from: seqft}\n")

    assert read_grids(file) == [Grid("seqft", "lr", [0.001, 0.01], None), Grid("ewc", "lambda_", [1.0, 10.0], "seqft")]


def test_the_shipped_grids_cover_every_strategy_that_is_tuned():
    grids = read_grids(SHIPPED)

    assert {grid.strategy for grid in grids} == STRATEGIES.keys()
    assert {len(grid.values) for grid in grids} == {3}
    for grid in grids:
        assert (grid.start_from == "seqft") == (grid.option == "lambda_")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold a grid per strategy"),
        ({"seqtf": {"lr": [1.0, 2.0]}}, "seqtf: unknown strategy 'seqtf': did you mean 'seqft'?"),
        ({"seqft": [1.0, 2.0]}, "seqft: must be an option with its values"),
        ({"seqft": {"rl": [1.0, 2.0]}}, "unknown option of a grid 'rl': did you mean 'lr'?"),
        ({"seqft": {"epochs": [1, 2]}}, "unknown option of a grid 'epochs'"),
        ({"seqft": {"lambda_": [1.0, 2.0]}}, "strategy 'seqft' has no lambda_"),
        ({"seqft": {"lr": [1.0, 2.0], "warmup": [0.1, 0.2]}}, "must have one option, it has 2"),
        ({"seqft": {"lr": [1.0]}}, "lr must have at least two values"),
        ({"seqft": {"lr": ["1e-3", 2.0]}}, r"write 1.0e-3, not 1e-3"),
        ({"seqft": {"lr": [0.0, 2.0]}}, "all numbers above 0"),
        ({"seqft": {"lr": [2.0, 1.0]}}, "the values of lr must ascend"),
        ({"ewc": {"lambda_": [1.0, 2.0], "start_from": "seqft"}}, "start_from is 'seqft': it must be one of the"),
        (
            {"seqft": {"lr": [1.0, 2.0]}, "mas": {"lambda_": [1.0, 2.0, 3.0]}},
            "must have equally many values, here they have: seqft 2, mas 3",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, content, message):
    file = tmp_path / "grids.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError, match=message) as error:
        read_grids(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.yaml: no such file"):
        read_grids(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("seqft: {lr: [1.0,\n")
    with pytest.raises(UserError, match=r"broken.yaml: broken YAML"):
        read_grids(tmp_path / "broken.yaml")
