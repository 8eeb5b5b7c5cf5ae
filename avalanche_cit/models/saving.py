"""Handing a tuned model on: what a folder can hold, and the way to the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from avalanche_cit.errors import UserError

if TYPE_CHECKING:
    from avalanche_cit.models.lmm import LMM


def check_can_be_saved(model: LMM) -> None:
    """Check that a folder of plain transformers, or of a plain LoRA adapter, can hold all that was tuned.

    Raises:
        UserError: It cannot.
    """
    if model.router is not None:
        raise UserError("a model with a projection per task (EProj) has no place in a plain transformers folder")
    from peft import get_peft_model_state_dict  # which takes seconds to import
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(module, BaseTunerLayer) for module in model.hf.modules()):
        return
    adapter = sum(weight.numel() for weight in get_peft_model_state_dict(model.hf).values())
    if sum(weight.numel() for weight in model.trainable_state().values()) != adapter:
        raise UserError(
            "weights outside of the LoRA adapter are tuned too, which an adapter has no place for; name their modules "
            "in LoraConfig(modules_to_save=[...]) instead of trainable="
        )


def upload(folder: str, repo_id: str, *, private: bool | None, token: str | None) -> str:
    """Upload a folder to the hub, and return its address.

    Raises:
        UserError: The user is not logged in, or the hub refuses or cannot be reached.
    """
    hub = HfApi(token=token)
    try:
        name = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        return str(hub.upload_folder(repo_id=name, folder_path=folder))
    except LocalTokenNotFoundError as error:
        raise UserError(f"cannot upload to '{repo_id}': log in first, with hf auth login") from error
    except (HfHubHTTPError, HFValidationError, OSError, httpx.HTTPError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot upload to '{repo_id}': {reason}") from error
