"""Work that only waits, for a disk or a decoder: done in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from studio.engine.events import Done, Event, Note

if TYPE_CHECKING:
    from studio.engine.engine import Context


@dataclass(frozen=True)
class Work:
    """Call something, and hand over what it returns. `title` is what is happening, in words."""

    lane: ClassVar[str] = "io"
    title: str
    call: Callable[[], Any]

    def run(self, context: Context) -> Generator[Event, Any, None]:
        if self.title:
            yield Note(self.title)
        yield Done(self.call())
