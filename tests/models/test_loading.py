"""Models come from folders and go into folders that plain transformers loads; what is no model is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import CLScenario
from transformers import AutoModelForImageTextToText, AutoProcessor, T5Config

from avalanche_cit.errors import UserError
from avalanche_cit.models import LMM, VisionFeatures


@pytest.mark.parametrize("cached", [False, True], ids=["pixels", "cached"])
def test_plain_transformers_loads_what_is_saved(
    folder: Path, benchmark: CLScenario, samples: list[Any], tmp_path: Path, cached: bool
) -> None:
    model = LMM.from_pretrained(folder, vision_features=VisionFeatures() if cached else None)
    with torch.no_grad():
        model.hf.language_projection.weight.mul_(1.5)
    x, _, _ = LMM.from_pretrained(folder).collator(samples)

    model.save_pretrained(tmp_path)

    stock = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    mine, theirs = model.hf.state_dict(), stock.state_dict()
    assert {name.replace(".tower.", ".") for name in mine} == set(theirs)
    with torch.no_grad():
        logits = [
            hf(pixel_values=x.images.tensors["pixel_values"], labels=x.labels, **x.inputs).logits
            for hf in (model.hf, stock)
        ]
        before = (
            LMM.from_pretrained(folder)
            .hf(pixel_values=x.images.tensors["pixel_values"], labels=x.labels, **x.inputs)
            .logits
        )
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], before)
    text = AutoProcessor.from_pretrained(tmp_path)(text="a red circle")["input_ids"]
    assert text == model.processor(text="a red circle")["input_ids"]
    # and it loads as an LMM again, the cache of the one that was saved still in place
    assert torch.equal(LMM.from_pretrained(tmp_path)(x), model(x))
    model.prepare(benchmark.test_stream[0].dataset)
    assert (model.collator(samples[:1])[0].images is None) == cached


def test_the_weights_come_in_the_type_asked_for(folders: dict[str, Path]) -> None:
    assert LMM.from_pretrained(folders["t5"]).hf.dtype == torch.float32
    assert LMM.from_pretrained(folders["t5"], dtype="bfloat16").hf.dtype == torch.bfloat16


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="unknown model 'tiny-bas': did you mean 'tiny-base'"):
        LMM.from_pretrained("tiny-bas")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")

    with pytest.raises(UserError, match=f"cannot load the model '{tmp_path}'") as caught:
        LMM.from_pretrained(tmp_path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["config.json", "processor_config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("left", [None, 100], ids=["missing", "cut off"])
def test_an_incomplete_folder_is_refused(
    folders: dict[str, Path], tmp_path: Path, damage: str, left: int | None
) -> None:
    shutil.copytree(folders["t5"], tmp_path, dirs_exist_ok=True)
    content = (tmp_path / damage).read_bytes()
    (tmp_path / damage).unlink()
    if left is not None:
        (tmp_path / damage).write_bytes(content[:left])

    with pytest.raises(UserError, match=f"cannot load the model '{tmp_path}'") as caught:
        LMM.from_pretrained(tmp_path)

    assert "\n" not in str(caught.value)


def test_a_text_model_is_refused_by_its_architecture(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)

    with pytest.raises(UserError, match=r"architecture 't5', which transformers does not load"):
        LMM.from_pretrained(tmp_path)
