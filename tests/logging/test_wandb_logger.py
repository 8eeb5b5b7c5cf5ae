"""W&B, offline: what Avalanche's metrics emit arrives in the run."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from avalanche.evaluation.metric_results import AlternativeValues, MetricValue
from matplotlib import pyplot
from PIL import Image

from avalanche_cit.logging.wandb_logger import WandBLogger


@pytest.fixture
def logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandBLogger]:
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandBLogger("tests", "a-run", dir=tmp_path, config={"lr": 0.1}, params={"mode": "offline"})
    yield logger
    logger.wandb.finish()


def metric(name: str, value: object, x_plot: int = 0) -> MetricValue:
    return MetricValue("origin", name, value, x_plot)


def test_numbers_arrive_under_avalanches_names(logger: WandBLogger) -> None:
    name = "Score_Exp/eval_phase/test_stream/Task000/Exp000"

    logger.log_metrics([metric(name, 50.0, 3), metric("Loss", 1, 3)])
    logger.after_training_exp(SimpleNamespace(), [])
    logger.log_metrics([metric(name, 62.5, 4), metric(name, 62.5, 5)])

    summary = dict(logger.wandb.run.summary)
    assert {key: summary[key] for key in (name, "Loss", "TrainingExperience")} == {
        name: 62.5,
        "Loss": 1,
        "TrainingExperience": 0,
    }
    assert logger.wandb.run.step == 5
    assert logger.wandb.run.name == "a-run"
    assert dict(logger.wandb.run.config) == {"lr": 0.1}


def test_images_and_figures_arrive_and_other_values_are_left_out(logger: WandBLogger) -> None:
    figure = pyplot.figure()
    pyplot.close(figure)
    logger.log_metrics(
        [
            metric("image", Image.new("RGB", (4, 4))),
            metric("figure", figure),
            metric("either", AlternativeValues("text", 2.0)),
            metric("text", "a text"),
            metric("tensor", torch.zeros(3)),
            metric("of the next step", 0, x_plot=1),
        ]
    )

    summary = dict(logger.wandb.run.summary)
    assert summary["image"]["_type"] == "image-file"
    assert summary["figure"]["_type"] == "image-file"
    assert summary["either"] == 2.0
    assert not {"text", "tensor"} & summary.keys()


def test_the_file_of_an_offline_run(logger: WandBLogger, tmp_path: Path) -> None:
    run = logger.wandb.run.id
    logger.wandb.finish()

    assert list(tmp_path.rglob(f"run-{run}.wandb"))
