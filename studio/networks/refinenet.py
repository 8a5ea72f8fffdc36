"""The RefineNet of the first score-based models: NCSN and NCSNv2.

Stages of residual blocks go down, with dilated convolutions instead of further halving at the bottom;
RefineNet blocks go back up and sum what they find at each scale. NCSN tells its norms which of
`levels` noise levels it sees, and answers with the score. NCSNv2 knows no level (`levels` = 0) and
answers with sigma times the score: the division by sigma that the papers do at the end is not here.

Letters: `gamma`, `alpha` and `beta` scale, add the map's own mean back to, and shift a normalised map.

Sources: Song and Ermon 2019, "Generative Modeling by Estimating Gradients of the Data Distribution",
appendix A; Song and Ermon 2020, "Improved Techniques for Training Score-Based Generative Models",
appendix B; Lin et al. 2017, "RefineNet".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import SpecError
from studio.networks.layers import in_full_precision

#: The stages of each published depth: (width as a multiple, dilation). A stage after the first that
#: is not dilated halves the picture.
STAGES: dict[int, tuple[tuple[int, int], ...]] = {
    4: ((1, 1), (2, 1), (2, 2), (2, 4)),
    5: ((1, 1), (2, 1), (2, 1), (4, 2), (4, 4)),
    6: ((1, 1), (2, 1), (2, 1), (2, 1), (4, 2), (4, 4)),
}


@dataclass(frozen=True)
class RefineNetOptions:
    """Everything needed to build the network again."""

    size: int = 32
    colours: int = 3
    width: int = 128  # channels at full resolution
    depth: int = 4  # stages: 4 up to 64 px, 5 for 128 px and 6 for 256 px as published
    levels: int = 0  # noise levels that the norms tell apart; 0 for a network that is told none
    centred: bool = False  # values of pictures lie around 0, not in [0, 1]
    classes: int = 0  # these networks have none

    def __post_init__(self) -> None:
        if self.depth not in STAGES:
            raise SpecError("A RefineNet has 4, 5 or 6 stages.")
        if not 2 <= self.width <= 2048 or not 0 <= self.levels <= 100_000:
            raise SpecError("A RefineNet needs 2 to 2048 channels and at most 100000 levels.")
        folds = 2 ** sum(dilation == 1 for _, dilation in STAGES[self.depth][1:])
        if not 8 <= self.size <= 1024 or self.size % folds:
            raise SpecError(
                f"{self.depth} stages need a size that {folds} divides; {self.size} is not.",
                "Use fewer stages.",
            )
        if self.colours not in (1, 3):
            raise SpecError("A RefineNet works on pictures with 1 or 3 channels.")
        if self.classes:
            raise SpecError("A RefineNet has no class input.")


class RefineNet(nn.Module):
    """(x (B, C, H, W), index of the noise level (B,), ignored) -> (B, C, H, W). 0 is the noisiest."""

    def __init__(self, options: RefineNetOptions) -> None:
        super().__init__()
        self.options = options
        widths = [options.width * multiple for multiple, _ in STAGES[options.depth]]
        dilations = [dilation for _, dilation in STAGES[options.depth]]
        n = options.levels
        self.stem = nn.Conv2d(options.colours, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for stage, (width, dilation) in enumerate(zip(widths, dilations)):
            first = (
                Residual(width, n) if not stage else Entry(widths[stage - 1], width, n, dilation)
            )
            self.down.append(nn.ModuleList([first, Residual(width, n, dilation)]))
        self.refine = nn.ModuleList([Refine([widths[-1]], widths[-2], n)])
        for stage in reversed(range(len(widths) - 1)):
            inputs = [widths[stage], widths[stage]]
            self.refine.append(Refine(inputs, widths[max(stage - 1, 0)], n, last=not stage))
        self.norm = InstanceNormPlus(widths[0], n)
        self.head = nn.Conv2d(widths[0], options.colours, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        level = label.long()
        h = in_full_precision(self.stem, x if self.options.centred else 2 * x - 1)
        found: list[Tensor] = []
        for stage in self.down:
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, level)
            found.append(h)
        h = self.refine[0]([found.pop()], level)
        for refine in self.refine[1:]:  # pyright: ignore[reportGeneralTypeIssues]
            h = refine([found.pop(), h], level)
        return in_full_precision(self.head, F.elu(self.norm(h, level)))


class InstanceNormPlus(nn.Module):
    """Instance norm that keeps what it takes away: how a map's mean stands among the others.

    The norm alone forgets the brightness of every map; `alpha` gives it back, relative to the mean
    and deviation (of n - 1) over the maps. With levels, each noise level has its own row of numbers.
    """

    def __init__(self, channels: int, levels: int = 0) -> None:
        super().__init__()
        self.levels = levels
        if levels:
            scales, shifts = torch.randn(levels, 2 * channels), torch.zeros(levels, channels)
            # Of each level: gamma, alpha, beta.
            self.table = nn.Parameter(torch.cat([1 + 0.02 * scales, shifts], 1))
        else:
            self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
            self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        if self.levels:
            gamma, alpha, beta = self.table[level].chunk(3, dim=1)
        else:
            gamma, alpha, beta = self.gamma, self.alpha, self.beta
        means = x.mean((2, 3), dtype=gamma.dtype)
        variance, mean = torch.var_mean(means, 1, keepdim=True)
        shift = gamma * alpha * (means - mean) / torch.sqrt(variance + 1e-5) + beta
        return torch.addcmul(shift[..., None, None], gamma[..., None, None], F.instance_norm(x))


class Residual(nn.Module):
    """Two convolutions beside the identity, each after a norm."""

    def __init__(self, channels: int, levels: int = 0, dilation: int = 1) -> None:
        super().__init__()
        self.norm_in = InstanceNormPlus(channels, levels)
        self.conv_in = _conv(channels, channels, dilation)
        self.norm_out = InstanceNormPlus(channels, levels)
        self.conv_out = _conv(channels, channels, dilation)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.conv_in(F.elu(self.norm_in(x, level)))
        return x + self.conv_out(F.elu(self.norm_out(h, level)))


class Entry(nn.Module):
    """The block that begins a lower stage: it halves the picture, or looks further by dilation."""

    def __init__(self, inputs: int, outputs: int, levels: int = 0, dilation: int = 1) -> None:
        super().__init__()
        self.halves = dilation == 1
        self.norm_in = InstanceNormPlus(inputs, levels)
        self.conv_in = _conv(inputs, inputs, dilation)
        self.norm_out = InstanceNormPlus(inputs, levels)
        self.conv_out = _conv(inputs, outputs, dilation)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1) if self.halves else _conv(inputs, outputs, dilation)
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.conv_in(F.elu(self.norm_in(x, level)))
        h = self.conv_out(F.elu(self.norm_out(h, level)))
        if not self.halves:
            return self.shortcut(x) + h
        return self.shortcut(F.avg_pool2d(x, 2)) + F.avg_pool2d(h, 2)


class Refine(nn.Module):
    """One RefineNet block: adapt each input, sum them at the larger scale, pool in a chain, smooth."""

    def __init__(
        self, inputs: list[int], outputs: int, levels: int = 0, last: bool = False
    ) -> None:
        super().__init__()
        self.adapt = nn.ModuleList([Smooth(width, 2, levels) for width in inputs])
        self.fuse = Fuse(inputs, outputs, levels) if len(inputs) > 1 else None
        self.pool = PoolChain(outputs, levels)
        self.out = Smooth(outputs, 3 if last else 1, levels)

    def forward(self, xs: list[Tensor], level: Tensor) -> Tensor:
        hs = [adapt(x, level) for adapt, x in zip(self.adapt, xs)]
        h = hs[0] if self.fuse is None else self.fuse(hs, level)
        return self.out(self.pool(h, level), level)


class Smooth(nn.Module):
    """Residual convolution units: `units` times two convolutions without bias beside the identity."""

    def __init__(self, channels: int, units: int, levels: int = 0) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_plain(channels) for _ in range(2 * units)])
        self.norms = _norms([channels] * (2 * units), levels)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        for k in range(0, len(self.convs), 2):
            h = x
            for i in (k, k + 1):
                h = self.convs[i](F.elu(self.norms[i](h, level)))
            x = x + h
        return x


class Fuse(nn.Module):
    """Multi-resolution fusion: every input through a convolution to the size of the first, summed."""

    def __init__(self, inputs: list[int], outputs: int, levels: int = 0) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(width, outputs, 3, padding=1) for width in inputs])
        self.norms = _norms(inputs, levels)

    def forward(self, xs: list[Tensor], level: Tensor) -> Tensor:
        hs = [conv(norm(x, level)) for conv, norm, x in zip(self.convs, self.norms, xs)]
        size = hs[0].shape[2:]
        return hs[0] + F.interpolate(hs[1], size, mode="bilinear", align_corners=True)


class PoolChain(nn.Module):
    """Chained residual pooling: wider and wider neighbourhoods, each added. NCSN takes their mean,
    NCSNv2 their maximum."""

    def __init__(self, channels: int, levels: int = 0) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_plain(channels) for _ in range(2)])
        self.norms = _norms([channels] * 2, levels)
        self.pool = nn.AvgPool2d(5, 1, 2) if levels else nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        x = path = F.elu(x)
        for conv, norm in zip(self.convs, self.norms):
            path = conv(self.pool(norm(path, level)))
            x = x + path
        return x


class _NoNorm(nn.Module):
    """What stands in the RefineNet blocks of NCSNv2 where NCSN has a norm."""

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return x


def _norms(widths: list[int], levels: int) -> nn.ModuleList:
    return nn.ModuleList([InstanceNormPlus(w, levels) if levels else _NoNorm() for w in widths])


def _conv(inputs: int, outputs: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)


def _plain(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)
