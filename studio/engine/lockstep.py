"""Network calls made together: several samplers of one model, each a plain iterator, in one batch.

A sampler calls its score deep inside a step, so to let two of them meet at that call each must be held
in the middle of a step. A Strand holds one: its iterator runs on a stack of its own (a greenlet), which
the owner, who asks for the next item, enters and which is left at every network call. All is one thread:
nothing runs at the same time as anything else, and every network call is made by the owner. A batch may
hold several times: a network is told the time of each sample.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from studio.diffusion.sampler import Step
from studio.diffusion.score import Score
from studio.lazy import no_grad, torch
from studio.weights.devices import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Function


@dataclass(frozen=True, eq=False)
class _Request:
    """A network call that a strand waits for: x (B, C, H, W), t (B,), labels (B,) or None."""

    source: Score
    x: Tensor
    t: Tensor
    labels: Tensor | None

    def meets(self, other: _Request) -> bool:
        """Whether one call can answer both."""
        return (
            self.source is other.source
            and (self.labels is None) == (other.labels is None)
            and self.x.shape[1:] == other.x.shape[1:]
            and (self.x.dtype, self.t.dtype) == (other.x.dtype, other.t.dtype)
        )


class Strand(Iterator[Step]):
    """An iterator of Steps that stops at each network call until the answer is there.

    Make the iterator with `score` and hand it to `follow`. The owner asks for items as of any
    iterator, or lets `together` bring several strands to their next items first. `close` ends what is
    under way; after it, or after the last item, there is none left. All in the thread of the first item.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._steps: Iterator[Step] = iter(())
        self._stack: greenlet | None = None
        self._grad = True  # whether gradients are on, on that stack
        self._ready: list[Step | BaseException] = []
        self._closed = False

    def score(self, source: Score) -> Score:
        """`source`, asked through this strand. Strands given the same object meet."""
        conditional = None
        if source.conditional is not None:
            conditional = lambda labels: self._through(source, labels)  # noqa: E731
        return replace(source, fn=self._through(source, None), conditional=conditional)

    def follow(self, steps: Iterator[Step]) -> Strand:
        """Hand over the iterator, which has not begun."""
        self._steps = steps
        return self

    def __next__(self) -> Step:
        if not self._ready:
            together([self])
        item = self._ready.pop()
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item

    def close(self) -> None:
        """End the iterator where it is, running its `finally`. Does nothing if it has ended."""
        self._closed = True
        if self._stack is not None and not self._stack.dead:
            with contextlib.suppress(Exception):
                self._entered(self._stack.throw)
        self._stack = None

    def spent(self) -> float:
        """Seconds at work since this was asked last, with its part of calls made together."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def resume(self, answer: Any = None) -> _Request | None:
        """Go on with an answer. A request if the iterator asks again, None if an item is ready."""
        if not self._ready and self._closed:
            self._ready.append(StopIteration())
        if self._ready:
            return None
        begun = time.perf_counter()
        if self._stack is None:
            self._stack, self._grad = greenlet(self._work), torch.is_grad_enabled()
        try:
            brought = self._entered(self._stack.switch, answer)
        except BaseException as end:
            # Whoever asks for the next item gets it.
            brought = end
        self._seconds += time.perf_counter() - begun
        if isinstance(brought, _Request):
            return brought
        self._ready.append(brought)
        return None

    def _entered(self, enter: Callable[..., Any], *told: Any) -> Any:
        """What the other stack comes back with. Gradients are on or off for each stack by itself."""
        outer = torch.is_grad_enabled()
        torch.set_grad_enabled(self._grad)
        try:
            return enter(*told)
        finally:
            self._grad = torch.is_grad_enabled()
            torch.set_grad_enabled(outer)

    # -- on the other stack -----------------------------------------------------------------------

    def _work(self, _: Any) -> None:
        """One item for each turn, until the iterator ends, fails or is dropped."""
        try:
            while True:
                self._back(next(self._steps))
        finally:
            if (close := getattr(self._steps, "close", None)) is not None:
                close()

    def _back(self, brought: Any) -> Any:
        """To the owner, with an item or a request; what the owner comes back with."""
        owner = getcurrent().parent
        assert owner is not None
        return owner.switch(brought)

    def _through(self, source: Score, labels: Tensor | None) -> Function:
        direct = _function(source, labels)

        def call(x: Tensor, t: Tensor) -> Tensor:
            # A gradient has to be taken where the call was made.
            if getcurrent() is not self._stack or (torch.is_grad_enabled() and x.requires_grad):
                return direct(x, t)
            answer = self._back(_Request(source, x, t, labels))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


def together(strands: Sequence[Strand]) -> None:
    """Bring every strand to its next item; network calls that can be made together are.

    What ends or breaks a strand is raised where its item is asked for. Whatever is no Exception, as
    Stopped, is raised here.
    """
    asking = [(s, r) for s in strands if (r := s.resume()) is not None]
    while asking:
        answers = [(s, a) for group in _groups(asking) for s, a in _answered(group)]
        asking = [(s, r) for s, answer in answers if (r := s.resume(answer)) is not None]


def _groups(asking: list[tuple[Strand, _Request]]) -> list[list[tuple[Strand, _Request]]]:
    """Requests that meet, beside each other."""
    groups: list[list[tuple[Strand, _Request]]] = []
    for strand, request in asking:
        for group in groups:
            if request.meets(group[0][1]):
                group.append((strand, request))
                break
        else:
            groups.append([(strand, request)])
    return groups


def _answered(group: list[tuple[Strand, _Request]]) -> list[tuple[Strand, Any]]:
    """The answer, or the Exception instead of it, for each; in one call if there is memory for it."""
    begun = time.perf_counter()
    strands, requests = zip(*group)
    try:
        answers: list[Any] = _call(requests)
    except Exception as error:
        if len(group) > 1 and is_out_of_memory(error):
            return [pair for one in group for pair in _answered([one])]
        answers = [error] * len(group)
    seconds, rows = time.perf_counter() - begun, [len(r.x) for r in requests]
    for strand, share in zip(strands, rows):
        strand._seconds += seconds * share / sum(rows)
    return list(zip(strands, answers))


@no_grad
def _call(requests: Sequence[_Request]) -> list[Tensor]:
    """One network call for all requests, which meet."""
    first = requests[0]
    if len(requests) == 1:
        return [_function(first.source, first.labels)(first.x, first.t)]
    labels = [r.labels for r in requests if r.labels is not None]
    function = _function(first.source, torch.cat(labels) if labels else None)
    x, t = (torch.cat(parts) for parts in zip(*((r.x, r.t) for r in requests)))
    return list(function(x, t).split([len(r.x) for r in requests]))


def _function(source: Score, labels: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    if labels is None:
        return source.fn
    assert source.conditional is not None
    return source.conditional(labels)
