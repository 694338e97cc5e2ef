"""How calls and outcomes travel between two processes: pickled, large arrays beside the pickle."""

import pickle
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from conformance.protocol import BrokenAdapter
from conformance.text import one_line

CHUNK = 1 << 17  # bytes; to read n, a Connection allocates n for each piece that arrives
SENT = "numpy.", "builtins.", "conformance.protocol.", f"{__name__}."  # whose classes may come back


@dataclass(frozen=True)
class Raised:
    """An exception of the implementation: the name of its type, and what it says."""

    kind: str
    text: str


@dataclass(frozen=True)
class Message:
    """A pickle, and the large arrays that it refers to."""

    pickled: bytes
    arrays: list[Any]


def send(pipe: Connection, message: object) -> None:
    """Send what pickle can send. Raises BrokenAdapter, before anything is sent, for the rest."""
    arrays: list[memoryview] = []

    def within(buffer: pickle.PickleBuffer) -> bool:
        large = buffer.raw().nbytes > CHUNK
        arrays.extend([buffer.raw()] if large else [])
        return not large

    try:
        pickled = pickle.dumps(message, 5, buffer_callback=within)
    except Exception as error:
        raise BrokenAdapter(
            f"{type(message).__name__} cannot be sent: {one_line(error)}"
        ) from error
    pipe.send((pickled, [array.nbytes for array in arrays]))
    for array in arrays:
        for first in range(0, array.nbytes, CHUNK):
            pipe.send_bytes(array[first : first + CHUNK])


def receive(pipe: Connection) -> Message:
    """Return what was sent, not yet unpickled. Raises EOFError if the other side has ended."""
    pickled, sizes = pipe.recv()
    arrays = [np.empty(size, np.uint8) for size in sizes]
    for array in arrays:
        for first in range(0, array.nbytes, CHUNK):
            pipe.recv_bytes_into(array.data[first : first + CHUNK])
    return Message(pickled, arrays)


class Plain(pickle.Unpickler):
    """Reads what an adapter's process sends, but nothing that would import a framework."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function of NumPy or of the protocol."""
        if not f"{module}.".startswith(SENT):
            raise BrokenAdapter(f"what came back holds a {module}.{name}")
        return super().find_class(module, name)


def read(message: Message, unpickler: type[pickle.Unpickler]) -> Any:
    """Return what was pickled. Raises BrokenAdapter if it cannot be had."""
    try:
        return unpickler(BytesIO(message.pickled), buffers=message.arrays).load()
    except BrokenAdapter:
        raise
    except Exception as error:
        raise BrokenAdapter(f"cannot be read: {type(error).__name__}: {one_line(error)}") from error
