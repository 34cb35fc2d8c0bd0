"""Convolutional encoder and decoder of the tokenizer; every stage halves or doubles the frame rate."""

from __future__ import annotations

from torch import Tensor, nn

from hftrainer.models.motion.motionmillion.network.modules import Patcher1D, UnPatcher1D, activation, run_masked
from hftrainer.models.motion.motionmillion.network.resnet import Resnet1D


class Encoder(nn.Module):
    """Motion (b, input_dim, t) to latents (b, output_emb_width, t / stride_t ** down_t)."""

    def __init__(
        self, input_dim: int, output_emb_width: int, down_t: int, stride_t: int, width: int, depth: int,
        dilation_growth_rate: int, act: str, norm: str | None, kernel_size: int, patch: tuple[int, str] | None,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = [Patcher1D(*patch)] if patch else []
        layers += [nn.Conv1d(input_dim, width, kernel_size, padding=kernel_size // 2), activation(act)]
        for _ in range(down_t):
            halve = nn.Conv1d(width, width, 2 * stride_t, stride=stride_t, padding=stride_t // 2)
            layers.append(nn.Sequential(halve, Resnet1D(width, depth, dilation_growth_rate, act, norm)))
        layers.append(nn.Conv1d(width, output_emb_width, kernel_size, padding=kernel_size // 2))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (b, 1, t), 1 on frames that exist, makes padded clips exact; see `run_masked`."""
        return run_masked(self.model, x, mask)[0]


class Decoder(nn.Module):
    """Latents (b, output_emb_width, l) to motion (b, input_dim, l * stride_t ** down_t)."""

    def __init__(
        self, input_dim: int, output_emb_width: int, down_t: int, stride_t: int, width: int, depth: int,
        dilation_growth_rate: int, act: str, norm: str | None, kernel_size: int, patch: tuple[int, str] | None,
    ):  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv1d(output_emb_width, width, kernel_size, padding=kernel_size // 2),
            activation(act),
        ]
        for _ in range(down_t):
            layers.append(
                nn.Sequential(
                    Resnet1D(width, depth, dilation_growth_rate, act, norm),
                    nn.Upsample(scale_factor=stride_t, mode="nearest"),
                    nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2),
                )
            )
        layers += [
            nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2),
            activation(act),
            nn.Conv1d(width, input_dim, kernel_size, padding=kernel_size // 2),
        ]
        self.model = nn.Sequential(*layers, *([UnPatcher1D(*patch)] if patch else []))

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (b, 1, l), 1 on codes that exist, makes padded clips exact; see `run_masked`."""
        return run_masked(self.model, z, mask)[0]
