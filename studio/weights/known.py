"""Public score models on the Hugging Face hub that are worth a download.

What is said of them is what their pages and papers say; `bytes` is the size of the weights as their
pages show it, or, for the models of one architecture, as that of their sister.
Sources: Song et al. 2021 (NCSN++, process VE), Ho et al. 2020 (DDPM, the discrete form of process VP).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A public model. `bytes` is about what a download takes."""

    id: str
    title: str
    size: int  # pixels, of a square picture
    sde: str  # its kind among the SDEs
    licence: str  # as its page states it; empty if it states none
    bytes: int
    says: str  # one sentence


_NCSNPP = 263_000_000
_DDPM = 455_000_000
_APACHE = "apache-2.0"


def _ncsnpp(what: str, title: str, says: str) -> Known:
    return Known(f"google/ncsnpp-{what}-256", title, 256, "ve", _APACHE, _NCSNPP, says)


def _ddpm(what: str, title: str, says: str) -> Known:
    return Known(f"google/ddpm-{what}-256", title, 256, "vp", _APACHE, _DDPM, says)


#: In the order in which they are shown: the quickest to try first.
KNOWN: tuple[Known, ...] = (
    Known(
        "google/ddpm-cifar10-32",
        "Small photographs (CIFAR-10)",
        32,
        "vp",
        _APACHE,
        143_000_000,
        "Ho's DDPM of ten kinds of animals and vehicles; the smallest here, and quick on a processor.",
    ),
    Known(
        "anton-l/ddpm-ema-flowers-64",
        "Flowers",
        64,
        "vp",
        _APACHE,
        _DDPM,
        "A DDPM of the Oxford flowers, trained with the example script of the diffusers library.",
    ),
    Known(
        "anton-l/ddpm-ema-pokemon-64",
        "Pokémon",
        64,
        "vp",
        _APACHE,
        _DDPM,
        "A DDPM of a small set of drawn figures, by the same script.",
    ),
    _ncsnpp(
        "celebahq",
        "Faces (CelebA-HQ), NCSN++",
        "Song's NCSN++ of celebrities' faces; wants a predictor with a corrector and many steps.",
    ),
    _ncsnpp("ffhq", "Faces (FFHQ), NCSN++", "Song's NCSN++ of faces of many ages."),
    _ncsnpp("church", "Churches (LSUN), NCSN++", "Song's NCSN++ of churches from outside."),
    _ncsnpp("bedroom", "Bedrooms (LSUN), NCSN++", "Song's NCSN++ of bedrooms."),
    _ddpm("celebahq", "Faces (CelebA-HQ), DDPM", "Ho's DDPM of celebrities' faces."),
    _ddpm("cat", "Cats (LSUN), DDPM", "Ho's DDPM of cats."),
    _ddpm("church", "Churches (LSUN), DDPM", "Ho's DDPM of churches from outside."),
    _ddpm("bedroom", "Bedrooms (LSUN), DDPM", "Ho's DDPM of bedrooms."),
    _ddpm("ema-celebahq", "Faces, DDPM, averaged", "The same network, its weights averaged."),
    _ddpm("ema-cat", "Cats, DDPM, averaged", "The same network, its weights averaged."),
    _ddpm("ema-church", "Churches, DDPM, averaged", "The same network, its weights averaged."),
    _ddpm("ema-bedroom", "Bedrooms, DDPM, averaged", "The same network, its weights averaged."),
    Known(
        "google/ncsnpp-ffhq-1024",
        "Large faces (FFHQ), NCSN++",
        1024,
        "ve",
        _APACHE,
        423_000_000,
        "Song's NCSN++ at 1024 pixels: a graphics card with much memory, and patience.",
    ),
    Known(
        "krasnova/sde-church-fine-tuned-van-gogh-256",
        "Churches after van Gogh",
        256,
        "ve",
        "mit",
        _NCSNPP,
        "The NCSN++ of churches, trained a little further on paintings: what fine-tuning can do.",
    ),
    Known(
        "eurecom-ds/scoresdeve-ema-celeba-64",
        "Small faces (CelebA), VE",
        64,
        "ve",
        "",
        262_000_000,
        "A VE model of faces; it names classes of its own, and states no licence.",
    ),
)
