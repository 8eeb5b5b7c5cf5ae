"""Encoders that are models of their own: any open_clip model for images, any sentence-transformers model for texts.

What is on this machine is used without asking the network.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from avalanche_cit.benchmarks.collator import decode_images
from avalanche_cit.benchmarks.scenario import Example
from avalanche_cit.errors import UserError, unknown_name
from avalanche_cit.similarity.weights import checksum

_BATCH = 64
_HUB_SECONDS = 10
_BROKEN_MODEL = (OSError, RuntimeError, ValueError, LookupError, TypeError, SafetensorError, UnpicklingError)


class OpenClip:
    """The image embedding of an open_clip model, before the normalisation that CLIP puts after it.

    Of several images of a sample the mean, and zeros for a sample without an image (ours).

    Args:
        name: A folder that open_clip saved (``open_clip_config.json`` and ``open_clip_model.safetensors`` or a
            checkpoint of another name that it knows), a repository ``ORG/NAME`` on the hub, or an architecture of
            open_clip such as ``"ViT-B-32"``.
        pretrained: For an architecture: which of its published weights, or a checkpoint file.
        device: Where to run; None for a GPU where there is one.

    Raises:
        UserError: There is no such model, or it is not on this machine and cannot be downloaded.

    Example:
        >>> OpenClip("ViT-B-32", "laion2b_s34b_b79k")([example, another]).shape
        torch.Size([2, 512])
    """

    def __init__(self, name: str, pretrained: str | None = None, *, device: torch.device | str | None = None) -> None:
        import open_clip  # type: ignore[import-untyped]  # takes seconds, which only those who use it should spend

        source = _open_clip_source(name, pretrained)
        try:
            with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded
                model, transform = open_clip.create_model_from_pretrained(source, pretrained=pretrained)
        except _BROKEN_MODEL as error:
            raise _unusable("open_clip model", name, error) from error
        self.device = _device(device)
        self._model = model.requires_grad_(False).eval().to(self.device)
        self._transform = transform

    @cached_property
    def name(self) -> str:
        """``open_clip`` and a checksum of its weights and settings."""
        visual = self._model.visual
        return f"open_clip:{checksum(visual.state_dict(), [str(visual), str(visual.preprocess_cfg)])}"

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example]) -> Tensor:
        """Return the image embeddings (N, D) of N examples."""
        vectors = []
        for start in range(0, len(examples), _BATCH):
            images = [decode_images(example) for example in examples[start : start + _BATCH]]
            blank = Image.new("RGB", (1, 1))
            pixels = [self._transform(image) for of_sample in images for image in of_sample or [blank]]
            encoded = self._model.encode_image(torch.stack(pixels).to(self.device)).float()
            parts = encoded.split([len(of_sample) or 1 for of_sample in images])
            vectors += [part.mean(0) * bool(own) for part, own in zip(parts, images, strict=True)]
        return torch.stack(vectors)


class SentenceEncoder:
    """A sentence-transformers model, whatever its pooling.

    Args:
        name_or_folder: A folder that sentence-transformers saved, or a name on the hub; one without an organisation
            is sentence-transformers' own.
        device: Where to run; None for a GPU where there is one.

    Raises:
        UserError: There is no such model, it says nothing of pooling, or it is not on this machine and cannot be
            downloaded.

    Example:
        >>> SentenceEncoder("all-MiniLM-L6-v2")(["a red circle", "park"]).shape
        torch.Size([2, 384])
    """

    def __init__(self, name_or_folder: str, *, device: torch.device | str | None = None) -> None:
        try:
            with torch.random.fork_rng(devices=[]):
                self._model = _load_sentence_transformer(name_or_folder, _device(device))
        except UserError:
            raise
        except _BROKEN_MODEL as error:
            raise _unusable("sentence-transformers model", name_or_folder, error) from error
        self._model.requires_grad_(False).eval()

    @cached_property
    def name(self) -> str:
        """``sentence_transformers`` and a checksum of its weights and settings."""
        model = self._model
        settings = [str(model), f"{model.max_seq_length} {model.default_prompt_name} {model.prompts}"]
        return f"sentence_transformers:{checksum(model.state_dict(), settings)}"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return the sentence embeddings (N, D) of N texts."""
        vectors: Tensor = self._model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False)
        return vectors.float().clone()  # made in inference mode, where no loss could take them up


# --- Finding a model: what is on this machine first -------------------------------------------------------------------


def _open_clip_source(name: str, pretrained: str | None) -> str:
    """Return the name under which open_clip loads a model, once it is sure that it can be had."""
    import open_clip
    from open_clip.constants import (  # type: ignore[import-untyped]
        HF_CONFIG_NAME,
        HF_SAFE_WEIGHTS_NAME,
        HF_WEIGHTS_NAME,
    )

    if Path(name).is_dir():
        if pretrained is not None:
            raise UserError(f"open_clip model '{name}' is a folder with weights of its own: leave '{pretrained}' away")
        return f"local-dir:{name}"
    if "/" in name:
        if pretrained is not None:
            raise UserError(f"open_clip model '{name}' has weights of its own: leave '{pretrained}' away")
        config, *weights = (_cached(name, file) for file in (HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME))
        if config and any(weights):
            return f"local-dir:{Path(config).parent}"
        _ask_hub("open_clip model", name, name)
        return f"hf-hub:{name}"
    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), n=4, cutoff=0)
        raise UserError(
            f"unknown open_clip model '{name}': no folder, no repository ORG/NAME, and no architecture (near to it are "
            f"{', '.join(near)}; open_clip.list_models() names all)"
        )
    known = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise UserError(f"open_clip model '{name}' needs weights, such as {name}:{known[0] if known else 'FILE'}")
    if Path(pretrained).is_file():
        return name
    published = open_clip.get_pretrained_cfg(name, pretrained)
    if not published:
        raise unknown_name(f"weights of open_clip model '{name}'", pretrained, known)
    repository, file = published["hf_hub"].rsplit("/", maxsplit=1)
    files = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if not any(_cached(repository, file) for file in files):
        _ask_hub("open_clip model", f"{name}:{pretrained}", repository)
    return name


def _load_sentence_transformer(name: str, device: torch.device) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    if Path(name).is_dir():
        if not (Path(name) / "modules.json").is_file():
            raise _without_pooling(name)
        return SentenceTransformer(name, device=str(device), local_files_only=True)
    repository = name if "/" in name else f"sentence-transformers/{name}"
    cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    modules = _cached(repository, "modules.json", cache)
    if modules:
        # by its folder: by its name, transformers would ask the hub for an adapter, local_files_only or not
        with contextlib.suppress(*_BROKEN_MODEL):  # downloaded in part
            return SentenceTransformer(str(Path(modules).parent), device=str(device), local_files_only=True)
    _ask_hub("sentence-transformers model", name, repository)
    if not is_sentence_transformer_model(repository, cache_folder=cache):
        raise _without_pooling(name)
    return SentenceTransformer(repository, device=str(device), cache_folder=cache)


def _without_pooling(name: str) -> UserError:
    return UserError(
        f"'{name}' is no sentence-transformers model: it has no modules.json, so its pooling is not known; make one of "
        "it with SentenceTransformer(modules=[Transformer(...), Pooling(...)]).save(FOLDER)"
    )


def _cached(repository: str, file: str, cache: str | None = None) -> str | None:
    """Path of a file of a hub repository in the cache of this machine."""
    try:
        found = try_to_load_from_cache(repository, file, cache_dir=cache)
    except HFValidationError:
        return None
    return found if isinstance(found, str) else None


def _ask_hub(kind: str, name: str, repository: str) -> None:
    """Ask the hub for a repository, once: its own client would retry every file of it for half a minute.

    Raises:
        UserError: It does not answer, or has no such repository.
    """
    try:
        HfApi().model_info(repository, timeout=_HUB_SECONDS)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UserError(f"there is no {kind} '{name}': no such folder, nor a model of that name on the hub") from error
    except Exception as error:  # what a failed connection raises depends on the client's HTTP library
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the {kind} '{name}' is not on this machine and cannot be downloaded ({reason}); where there is network, "
            f"`hf download {repository}` fetches it into the Hugging Face cache (HF_HOME), which may be copied here"
        ) from error


def _unusable(kind: str, name: str, error: Exception) -> UserError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(f"cannot load the {kind} '{name}': {lines[0]}")


def _device(device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
