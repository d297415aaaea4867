"""Which images are taken. Pure.

They are shown under our own address, so that nothing may pass that a browser would run, such as SVG.
"""

from __future__ import annotations

from llama_async_proxy.errors import InvalidInput, TooLarge
from llama_async_proxy.records.chats import Image

MAX_BYTES = 20 << 20
_BEGINNINGS = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8", "image/webp": b"RIFF"}


def check_image(image: Image, where: str) -> None:
    """Raises InvalidInput naming `where`, TooLarge."""
    beginning = _BEGINNINGS.get(image.media_type)
    if beginning is None:
        raise InvalidInput(where, f"must be one of {', '.join(_BEGINNINGS)}, not {image.media_type[:100]!r}")
    if not image.data.startswith(beginning):
        raise InvalidInput(where, f"does not begin as {image.media_type} does")
    if len(image.data) > MAX_BYTES:
        raise TooLarge(where, f"is larger than {MAX_BYTES >> 20} MiB")
