"""Check of images that are attached to messages. Pure.

Browsers load them from the service's own address, so formats that can carry scripts, such as SVG, are refused.
"""

from __future__ import annotations

from llama_async_proxy.errors import InvalidInput, TooLarge
from llama_async_proxy.records.chats import Image

MAX_BYTES = 20 << 20
_SIGNATURES = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8", "image/webp": b"RIFF"}


def check_image(image: Image, where: str) -> None:
    """Raise InvalidInput with the field `where` for another format, TooLarge above MAX_BYTES."""
    signature = _SIGNATURES.get(image.media_type)
    if signature is None:
        raise InvalidInput(where, f"must be one of {', '.join(_SIGNATURES)}, not {image.media_type[:100]!r}")
    if not image.data.startswith(signature):
        raise InvalidInput(where, f"does not begin as {image.media_type} does")
    if len(image.data) > MAX_BYTES:
        raise TooLarge(where, f"is larger than {MAX_BYTES >> 20} MiB")
