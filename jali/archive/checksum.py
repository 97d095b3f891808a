"""The checksum of a saved model: of its description, and of every tensor with its name, type and shape.

It tells damage from what was written: a flipped bit in the weights is still a whole safetensors file. It is no signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from jali.errors import FileError

KEY = "jali.sha256"  # in the metadata of the file


def checksum(description: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 as hexadecimal digits; the order of ``tensors`` does not matter."""
    found = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check(path: Path, description: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raises :class:`FileError` unless ``metadata`` has the checksum of what is there."""
    found, wanted = checksum(description, tensors), metadata.get(KEY)
    if wanted is None:
        raise FileError(
            f"{str(path)!r} has no checksum: it was changed, or an older version wrote it; save the model again"
        )
    if found != wanted:
        raise FileError(
            f"{str(path)!r} has the checksum {found[:12]}…, and {wanted[:12]}… was written: it was altered or damaged; copy it "
            "anew, or save the model again"
        )
