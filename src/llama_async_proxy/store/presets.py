"""Preset files: `NAME.ini` in one directory, and the last ten earlier versions of each.

Callers must check names: a name must not contain a path. All methods block; call them in a thread.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.errors import Conflict, InvalidInput, NotFound, PresetInvalid, PresetNotFound
from llama_async_proxy.store.atomic import file_failure, replace_file, sync_directory

MAX_VERSIONS = 10
MAX_FILE_BYTES = 1 << 20
"""Largest file that is read. Presets of this service are much smaller."""
_EXTENSION = ".ini"
_VERSIONS = ".versions"
_VERSION = re.compile(r"[0-9]{1,16}")


class PresetFile(Struct, frozen=True):
    name: str
    path: str
    size_bytes: int
    modified_at_ms: int


class PresetVersion(Struct, frozen=True):
    """An earlier text of a preset."""

    id: int
    """Milliseconds since the epoch at which it was replaced; larger ids are newer."""
    size_bytes: int


class PresetFiles:
    """Reads and changes the preset files of one directory."""

    def __init__(self, directory: Path, now_ms: Callable[[], int]) -> None:
        self.directory = directory
        self._now_ms = now_ms
        self._lock = threading.Lock()
        """Held while a file changes, so that no version is lost between reading the old text and writing."""

    # --- reading ----------------------------------------------------------------------------------

    def all(self) -> tuple[PresetFile, ...]:
        """All presets by name. Raises PermissionDenied, StoreUnavailable."""
        try:
            with os.scandir(self.directory) as entries:
                names = [e.name for e in entries if e.name.endswith(_EXTENSION) and e.name[0] != "." and e.is_file()]
            return tuple(self._file(name.removesuffix(_EXTENSION)) for name in sorted(names))
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise file_failure("read", str(self.directory), exc) from exc

    def get(self, name: str) -> PresetFile:
        """One preset by name. Raises PresetNotFound."""
        try:
            return self._file(name)
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as exc:
            raise file_failure("read", str(self._path(name)), exc) from exc

    def read(self, name: str) -> str:
        """Text of a preset, with unchanged line ends. Raises PresetNotFound, PresetInvalid, PermissionDenied."""
        return self._text(name, self._path(name))

    def versions(self, name: str) -> tuple[PresetVersion, ...]:
        """Earlier versions, newest first, also of a deleted preset."""
        found = [
            PresetVersion(int(path.stem), path.stat().st_size)
            for path in self._versions_dir(name).glob(f"*{_EXTENSION}")
            if _VERSION.fullmatch(path.stem)
        ]
        return tuple(sorted(found, key=lambda version: -version.id))

    def read_version(self, name: str, version: int) -> str:
        """Text of an earlier version. Raises NotFound."""
        if all(known.id != version for known in self.versions(name)):
            raise NotFound("version", version, f"Preset {name!r} has no version {version}.")
        return self._text(name, self._versions_dir(name) / f"{version}{_EXTENSION}")

    # --- changing ---------------------------------------------------------------------------------

    def create(self, name: str, text: str) -> PresetFile:
        """Write a new preset. Raises Conflict when one has that name in any case."""
        with self._lock:
            self._check_free(name)
            return self._write(name, _encoded(name, text))

    def change(self, name: str, new_text: Callable[[str | None], str]) -> PresetFile:
        """Write `new_text(old text)`; the old text is None without a file. The old text becomes a version.

        An exception of `new_text` leaves the file unchanged. No other change comes in between.
        """
        with self._lock:
            old = self._text(name, self._path(name)) if self._path(name).is_file() else None
            if old is None:
                self._check_free(name)
            new = new_text(old)
            content = _encoded(name, new)
            if new == old:
                return self._file(name)
            if old is not None:
                self._keep_version(name, old)
            return self._write(name, content)

    def delete(self, name: str) -> None:
        """Delete a preset. Its text becomes a version, so that it can be restored. Raises PresetNotFound."""
        with self._lock:
            self._keep_version(name, self._text(name, self._path(name)))
            try:
                self._path(name).unlink()
                sync_directory(self.directory)
            except OSError as exc:
                raise file_failure("delete", str(self._path(name)), exc) from exc

    def rename(self, name: str, new_name: str) -> PresetFile:
        """Rename a preset and its versions. Raises PresetNotFound, Conflict."""
        with self._lock:
            self.get(name)
            self._check_free(new_name, but=name)
            try:
                self._path(name).rename(self._path(new_name))
                if self._versions_dir(name).is_dir():
                    self._merge_versions(name, new_name)
                sync_directory(self.directory)
                return self._file(new_name)
            except OSError as exc:
                raise file_failure("rename", str(self._path(name)), exc) from exc

    # --- inside -----------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}{_EXTENSION}"

    def _versions_dir(self, name: str) -> Path:
        return self.directory / _VERSIONS / name

    def _file(self, name: str) -> PresetFile:
        path = self._path(name)
        status = path.stat()
        return PresetFile(name, str(path), status.st_size, status.st_mtime_ns // 1_000_000)

    def _missing(self, name: str) -> PresetNotFound:
        wanted = name.casefold()
        return PresetNotFound(name, similar=tuple(f.name for f in self.all() if f.name.casefold() == wanted))

    def _check_free(self, name: str, *, but: str | None = None) -> None:
        """Raise Conflict for a used name. Case is ignored everywhere, because some file systems ignore it."""
        for file in self.all():
            if file.name != but and file.name.casefold() == name.casefold():
                raise Conflict(f"There is a preset {file.name!r} already. Choose another name.")

    def _text(self, name: str, path: Path) -> str:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InvalidInput(name, f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, so it is no preset")
            return path.read_bytes().decode()
        except FileNotFoundError:
            raise self._missing(name) from None
        except UnicodeDecodeError as exc:
            raise PresetInvalid(name, (f"byte {exc.start} of {path} is not UTF-8; save the file as UTF-8",)) from exc
        except OSError as exc:
            raise file_failure("read", str(path), exc) from exc

    def _write(self, name: str, content: bytes) -> PresetFile:
        try:
            # A symbolic link stays, and the file that it points to is replaced.
            replace_file(self._path(name).resolve(), content)
            return self._file(name)
        except OSError as exc:
            raise file_failure("write", str(self._path(name)), exc) from exc

    def _keep_version(self, name: str, text: str) -> None:
        known = self.versions(name)
        version = max([self._now_ms(), *(version.id + 1 for version in known)])
        directory = self._versions_dir(name)
        try:
            replace_file(directory / f"{version}{_EXTENSION}", text.encode())
            for old in known[MAX_VERSIONS - 1 :]:
                (directory / f"{old.id}{_EXTENSION}").unlink(missing_ok=True)
        except OSError as exc:
            raise file_failure("write", str(directory), exc) from exc

    def _merge_versions(self, name: str, new_name: str) -> None:
        """Merge the versions with those that a deleted preset left under the new name; the newest stay."""
        old, new = self._versions_dir(name), self._versions_dir(new_name)
        new.mkdir(parents=True, exist_ok=True)
        for path in old.glob(f"*{_EXTENSION}"):
            path.replace(new / path.name)
        for version in self.versions(new_name)[MAX_VERSIONS:]:
            (new / f"{version.id}{_EXTENSION}").unlink(missing_ok=True)
        if name.casefold() != new_name.casefold():
            old.rmdir()


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(name, "contains characters that UTF-8 cannot hold") from exc
