"""External encoders small enough to build here, saved to folders in the layouts of the real ones; and a hub cache.

The libraries are imported where they are used: importing them takes longer than all tests that do without.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = "a the red dark green blue pale yellow circle square small on white colour what is it question : answer ?"
CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
}
PIXELS = {"size": 16, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "interpolation": "bicubic"}

Save = Callable[..., Any]


@pytest.fixture(scope="session")
def save_clip() -> Save:
    """Write a random open_clip model as open_clip's ``push_to_hf_hub`` lays it out, and return it."""

    def save(folder: Path, seed: int = 0, weights: str = "open_clip_model.safetensors") -> torch.nn.Module:
        import open_clip
        from open_clip.factory import set_model_preprocess_cfg
        from open_clip.push_to_hf_hub import save_config_for_hf

        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        model = open_clip.CLIP(**CLIP).eval()
        set_model_preprocess_cfg(model, PIXELS | {"resize_mode": "squash"})
        save_config_for_hf(model, folder / "open_clip_config.json", model_config=CLIP)
        if weights.endswith(".safetensors"):
            save_file(model.state_dict(), folder / weights)
        else:
            torch.save(model.state_dict(), folder / weights)
        return model

    return save


@pytest.fixture(scope="session")
def save_sentences() -> Save:
    """Write a random BERT with a pooling as sentence-transformers does; BERT alone lies in ``<folder>-bert``."""

    def save(folder: Path, seed: int = 0, pooling: str = "cls") -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        plain = folder.with_name(f"{folder.name}-bert")
        _save_bert(plain, seed)
        SentenceTransformer(modules=[Transformer(str(plain)), Pooling(16, pooling)], device="cpu").save(str(folder))

    return save


@pytest.fixture(scope="session")
def clip_folder(save_clip: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved open_clip model."""
    folder = tmp_path_factory.mktemp("encoders") / "clip"
    save_clip(folder)
    return folder


@pytest.fixture(scope="session")
def sentence_folder(save_sentences: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved sentence-transformers model, BERT with CLS pooling."""
    folder = tmp_path_factory.mktemp("encoders") / "sentences"
    save_sentences(folder)
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """An empty hub cache, and a hub that cannot be reached; ``hub_cache(repository, folder)`` fills the cache."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("SENTENCE_TRANSFORMERS_HOME", raising=False)

    def put(repository: str, folder: Path) -> None:
        home = cache / f"models--{repository.replace('/', '--')}"
        commit = "0123456789" * 4
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(commit)
        for file in folder.rglob("*"):
            if file.is_file():
                copy = home / "snapshots" / commit / file.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())

    return put


def _save_bert(folder: Path, seed: int) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=32, initializer_range=0.5, **sizes)
    BertModel(config).save_pretrained(folder)
