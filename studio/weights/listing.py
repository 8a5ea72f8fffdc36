"""What a repository of the hub says it holds, believed only as far as it can be checked.

Of everything in a repository a model needs its description, one set of weights and its papers: no
second copy in another format, no half-precision twin, no encoder. Anyone may upload a listing, so
names and sizes are looked at before a single byte is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from studio.errors import HubError

#: More than this is no model: files in a repository, files and bytes of one model.
MOST_LISTED = 20_000
MOST_FILES = 100
LARGEST = 64 * 2**30
_LARGEST_TEXT = 4 * 2**20

#: Where a network may lie, the best first: averaged weights, and the root of older uploads.
_PLACES = ("unet_ema/", "unet/", "model/", "")
_DESCRIPTIONS = (
    *("model_index.json", "score_studio.json", "config.json", "scheduler_config.json"),
    *("unet_ema/config.json", "unet/config.json", "model/config.json"),
    "scheduler/scheduler_config.json",
)
_PAPERS = ("card.md", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")
_NAMES = ("diffusion_pytorch_model", "diffusion_model")
_ENDINGS = (".safetensors", ".bin", ".pt")  # in order of preference: the first runs no code
_OURS = "model.safetensors"  # the studio's own, which describes itself
_SINGLE = (".safetensors", ".pth", ".pt", ".ckpt")
#: Parts that tell of a model of texts or latents, which is none for us.
_LATENT = ("vae", "vqvae", "movq", "text_encoder", "text_encoder_2", "transformer")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. A large one has a sha256; each has the id of its blob in git."""

    path: str
    size: int
    sha256: str = ""
    blob: str = ""

    @property
    def key(self) -> str:
        """What stands for its content."""
        return self.sha256 or self.blob


@dataclass(frozen=True)
class Listing:
    """A model on the hub: the files that are needed to use it, at one commit."""

    id: str
    revision: str  # the commit's hash
    files: tuple[RemoteFile, ...]
    licence: str = ""
    summary: str = ""
    asked: str = "main"  # the branch, tag or commit that was asked for

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files)

    @property
    def lone(self) -> str:
        """The one file of weights that comes without a description, and has to be added; or ""."""
        paths = [f.path for f in self.files]
        alone = [p for p in paths if p.endswith(_SINGLE) and p != _OURS]
        return alone[0] if alone and not any(p in _DESCRIPTIONS for p in paths) else ""


def as_size(bytes: int) -> str:
    """A number of bytes for people: "455 MB"."""
    amount, unit = float(bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 99.5 or unit == "B" else f"{amount:.3g} {unit}"


def to_dict(listing: Listing) -> dict[str, Any]:
    return asdict(listing)


def from_dict(data: Any) -> Listing:
    """A Listing from what was written down, checked as if it came from the hub.

    Raises HubError if it is none.
    """
    try:
        files = tuple(remote_file(data["id"], f) for f in data["files"])
        texts = {k: str(data[k]) for k in ("id", "revision", "licence", "summary", "asked")}
    except (KeyError, TypeError, AttributeError) as error:
        raise HubError("What was noted of a download cannot be understood.") from error
    return Listing(files=files, **texts)


def remote_file(id: str, facts: Mapping[str, Any]) -> RemoteFile:
    """A file of a listing, its name and size checked. Raises HubError if one is not to be trusted."""
    path, size = facts["path"], facts["size"]
    if not isinstance(path, str) or _leads_out(path):
        raise HubError(f"{id} lists a file that would lie outside of its folder ({path!r:.60}).")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST:
        raise HubError(f"{id} lists {path[:60]} with an impossible size ({size!r:.30}).")
    sha256, blob = str(facts.get("sha256") or ""), str(facts.get("blob") or "")
    if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise HubError(f"{id} lists {path[:60]} with a checksum that is none.")
    return RemoteFile(path, size, sha256, blob if re.fullmatch(r"[0-9a-f]{40}", blob) else "")


def needed(id: str, files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The files of a repository that its model needs. Raises HubError if there is no such model."""
    found = {f.path: f for f in files}
    if len(found) > MOST_LISTED:
        raise HubError(f"{id} lists {len(found)} files, which no model has.")
    if latent := [part for part in _LATENT if f"{part}/config.json" in found]:
        raise HubError(
            f"{id} works in the latent space of an autoencoder, or from text ({latent[0]}).",
            "The studio reads networks that work on pixels.",
        )
    weights = _weights(found)
    described = [found[p] for p in _DESCRIPTIONS if p in found and weights]
    weights = weights or _single(id, found)
    papers = [found[p] for p in _PAPERS if p in found and found[p].size <= _LARGEST_TEXT]
    chosen = tuple(dict.fromkeys([*described, *papers, *weights]))
    if any(f.size > _LARGEST_TEXT for f in described):
        raise HubError(f"{id} describes itself in a file too large for a description.")
    if len(chosen) > MOST_FILES or sum(f.size for f in chosen) > LARGEST:
        raise HubError(f"{id} would take more than the studio fetches as one model.")
    return chosen


def _weights(found: Mapping[str, RemoteFile]) -> list[RemoteFile]:
    """The weights of a model that is described, in the ending we like best, maybe in shards."""
    places = [place for place in _PLACES if f"{place}config.json" in found]
    for place in places:
        for ending in _ENDINGS:
            for name in _NAMES:
                if (whole := found.get(f"{place}{name}{ending}")) is not None:
                    return [whole]
                if shards := _shards(found, f"{place}{name}", ending):
                    return shards
    for place in places:  # nothing in full precision
        variant = re.compile(re.escape(place + _NAMES[0]) + r"\.[a-z_]\w*\.(safetensors|bin)")
        if variants := sorted(p for p in found if variant.fullmatch(p)):
            return [found[min(variants, key=lambda p: ("non_ema" in p, p.endswith("bin"), p))]]
    return [found[_OURS]] if _OURS in found else []


def _shards(found: Mapping[str, RemoteFile], stem: str, ending: str) -> list[RemoteFile]:
    """All shards of a set of weights and their index; none if one is missing."""
    index = found.get(f"{stem}{ending}.index.json")
    part = re.compile(re.escape(stem) + r"-(\d{5})-of-(\d{5})" + re.escape(ending))
    parts = {m[1]: (m[2], path) for path in found if (m := part.fullmatch(path))}
    if index is None or not parts or {int(of) for of, _ in parts.values()} != {len(parts)}:
        return []
    return [index, *(found[path] for _, path in sorted(parts.values()))]


def _single(id: str, found: Mapping[str, RemoteFile]) -> list[RemoteFile]:
    """The one file of weights in a repository without a description."""
    files = [f for f in found.values() if f.path.endswith(_SINGLE) and "/" not in f.path]
    if not files:
        files = [f for f in found.values() if f.path.endswith(_SINGLE)]
    if len(files) == 1:
        return files
    if not files:
        raise HubError(
            f"{id} holds no weights that the studio reads.",
            "Look for a model of the library “diffusers”, or see score-studio models known.",
        )
    names = ", ".join(sorted(f.path for f in files)[:4])
    raise HubError(
        f"{id} holds {len(files)} files of weights and does not say which is the model: {names}.",
        "Save the one you want yourself, then: score-studio models add FILE.",
    )


def _leads_out(path: str) -> bool:
    """Whether a name is none, or one that could reach outside of a folder on any system."""
    return (
        not path
        or len(path) > 400
        or not path.isprintable()
        or "\\" in path
        or path.startswith("/")
        or re.match(r"[A-Za-z]:", path) is not None
        or any(part in ("", ".", "..") for part in path.split("/"))
        or str(PurePosixPath(path)) != path
    )
