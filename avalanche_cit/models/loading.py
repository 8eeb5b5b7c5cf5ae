"""Loading stock models and processors, with one clear line for whatever can be wrong with a name or a folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from avalanche_cit.errors import UserError, unknown_name

SHIPPED = ("tiny-base", "tiny-instruct")
"""Models that come with the package."""


def load_stock(
    name_or_folder: str | Path,
    *,
    dtype: str | torch.dtype,
    device_map: Any = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Load a stock model and its processor.

    Args:
        name_or_folder: A shipped model, a folder, or a name on the hub.
        dtype, device_map, quantization_config, trust_remote_code: As transformers takes them.

    Raises:
        UserError: Nothing can be loaded under that name, or it is no multimodal model, or has no processor, or its
            weights are not those of its architecture.
    """
    source = model_folder(name_or_folder)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not trust_remote_code:
            raise UserError(
                f"the model '{name_or_folder}' is of the architecture '{config.model_type}', which transformers does "
                "not load as a model of images and text; take a multimodal model"
            )
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=trust_remote_code)
        if not isinstance(processor, ProcessorMixin):
            raise UserError(
                f"the model '{name_or_folder}' has no processor of images and text (processor_config.json and what it "
                "names); copy the one of the model that it was made from"
            )
        hf, report = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=dtype,
            device_map=device_map,
            quantization_config=quantization_config,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except UserError:
        raise
    except UnpicklingError as error:  # torch's text says how to open it all the same
        raise UserError(
            f"cannot load the model '{name_or_folder}': its weights are a pickle of more than tensors, which could run "
            "any code and is not opened; take a model with safetensors"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"cannot load the model '{name_or_folder}': {reason} "
            f"(shipped: {', '.join(SHIPPED)}; or a folder, or a name on the hub)"
        ) from error
    _check_weights(name_or_folder, hf, report)
    return hf, processor


def model_folder(name_or_folder: str | Path) -> str:
    """Return the folder of a shipped model, or the name as it is.

    Raises:
        UserError: It looks like a shipped model's name but is none.
    """
    name = str(name_or_folder)
    if name in SHIPPED:
        return str(resources.files("avalanche_cit.models.tiny") / name.removeprefix("tiny-"))
    if not Path(name).exists() and "/" not in name:
        raise unknown_name("model", name, SHIPPED)
    return name


def _check_weights(name_or_folder: str | Path, hf: Any, report: dict[str, Any]) -> None:
    """Refuse weights that transformers would have drawn at random, with no more than a warning."""
    missing = sorted(report["missing_keys"]) + [str(key[0]) for key in report["mismatched_keys"]]
    if missing:
        raise UserError(
            f"the model '{name_or_folder}' does not hold the weights of {type(hf).__name__}: {len(missing)} of them "
            f"are missing or of another shape, such as '{missing[0]}'; config.json and weights do not belong together"
        )
