"""Models of the Hugging Face hub, by id and pinned revision (https://huggingface.co/docs/huggingface_hub)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UnavailableError, UserError
from .loading import read_config
from .processing.text import OLDER_FILES

# Weights, shape, and what the processors read. No pickles and no code. The older tokenizers are refused by name: without their
# files a synthetic one would stand in for them.
FILES = [
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    *OLDER_FILES,
]


def hub_config(reference: str) -> tuple[dict[str, Any], str]:
    """``config.json`` of ``organisation/name`` or ``organisation/name@revision``, and the commit that it came from."""
    folder = _fetch(reference, ["config.json"])
    return read_config(folder), folder.name


def hub_folder(reference: str) -> Path:
    """The folder of the model's weights, config and tokenizer in the local hub cache, fetched where they are not there yet."""
    return _fetch(reference, FILES)


def _fetch(reference: str, files: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as missing:
        raise UnavailableError("Hub models need huggingface_hub.", "Run: pip install 'ipfs_accelerate_py[torch]'") from missing
    name, _, revision = reference.partition("@")
    otherwise = (
        "Name a local folder of the model instead, or use synthetic weights (a model class, a size and --weights synthetic)."
    )
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=files))
    except GatedRepoError as denied:
        raise UserError(
            f"'{name}' is gated: accept its terms on huggingface.co and log in with 'hf auth login'. {otherwise}"
        ) from denied
    except RevisionNotFoundError as missing:
        raise UserError(f"'{name}' has no revision '{revision}' on the Hugging Face hub.") from missing
    except RepositoryNotFoundError as missing:
        raise UserError(f"There is no model '{name}' on the Hugging Face hub, or it is private. {otherwise}") from missing
    except HFValidationError as invalid:
        raise UserError(f"'{name}' is not a model id; one looks like organisation/name.") from invalid
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as unreachable:
        raise UserError(
            f"Could not fetch {files[0]} of '{reference}': the Hugging Face hub cannot be reached and no copy is cached. {otherwise}"
        ) from unreachable
