"""Reading what is compressed with Zstandard (RFC 8878), by the library that dpkg and systemd bring to every host.

Python has it from 3.14 on. Source: zstd.h, "Streaming decompression".
"""

from __future__ import annotations

import ctypes
import io
from typing import Any, BinaryIO

LIBRARY = "libzstd.so.1"
BLOCK = 1 << 17
"""Bytes that are read and decompressed at once; zstd recommends no less."""


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer, which have the same fields."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t)]


def _library() -> Any:
    """The library, its functions typed. Raises OSError where there is none."""
    made = ctypes.CDLL(LIBRARY)
    made.ZSTD_createDStream.restype = ctypes.c_void_p
    made.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    made.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer)]
    made.ZSTD_decompressStream.restype = ctypes.c_size_t
    made.ZSTD_isError.argtypes = [ctypes.c_size_t]
    return made


class Reader(io.RawIOBase):
    """What a compressed file holds, as a stream. Raises OSError for what is no Zstandard, or ends in the middle."""

    def __init__(self, file: BinaryIO) -> None:
        """Read from an open file, which the caller closes."""
        self._file, self._zstd = file, _library()
        self._stream = self._zstd.ZSTD_createDStream()
        self._held = ctypes.create_string_buffer(BLOCK)
        self._in = _Buffer(ctypes.cast(self._held, ctypes.c_void_p), 0, 0)
        self._awaits = 0
        """What zstd says of the present frame: 0 where it is whole."""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill as much of a buffer as one block gives; 0 at the end."""
        room = (ctypes.c_char * len(target)).from_buffer(target)
        out = _Buffer(ctypes.cast(room, ctypes.c_void_p), len(target), 0)
        while out.at == 0 and len(target):
            ended = self._in.at == self._in.size and not self._fill()
            before = self._in.at
            awaits = self._zstd.ZSTD_decompressStream(self._stream, ctypes.byref(out), ctypes.byref(self._in))
            if self._zstd.ZSTD_isError(awaits):
                raise OSError("it is not compressed with Zstandard, or damaged")
            if out.at or self._in.at != before:  # else it says what it awaits of a frame that has not begun
                self._awaits = awaits
            elif ended and self._awaits:
                raise OSError("it ends in the middle")
            elif ended:
                return 0
        return int(out.at)

    def _fill(self) -> bool:
        data = self._file.read(BLOCK)
        ctypes.memmove(self._held, data, len(data))
        self._in.size, self._in.at = len(data), 0
        return bool(data)

    def close(self) -> None:
        """Give back what the library holds."""
        if not self.closed:
            self._zstd.ZSTD_freeDStream(self._stream)
        super().close()
