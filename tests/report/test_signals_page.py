from __future__ import annotations

import torch
from torch import nn

from detpipe.inspect.signals import measure_signals
from detpipe.report.curves import to_svg
from detpipe.report.drawing import image_to_png
from detpipe.report.mosaic import heat
from detpipe.report.signals_page import SignalsPage, render, signals_figure, signals_figures, signals_text


def page(std: float) -> SignalsPage:
    network = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(8, 8, bias=False), nn.ReLU())))
    for layer in network[::2]:
        nn.init.normal_(layer.weight, std=std, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    x = torch.ones(4, 8)
    signals = measure_signals(network, lambda: network(x).sum())
    return SignalsPage(subtitle="<tiny>", signals=signals, maps={"0": heat(torch.eye(3).numpy())})


def test_what_becomes_of_the_signals_is_said() -> None:
    assert "Activations explode (more than 100 times)" in render(page(10.0))
    text = signals_text(page(0.01))
    assert "Activations vanish (less than 1/100)" in text
    assert "in 6 layers" in text
    assert "&lt;tiny&gt;" in render(page(1.0))


def test_a_network_without_weights() -> None:
    network, x = nn.Sequential(nn.ReLU()), torch.zeros(1, 2, requires_grad=True)
    data = SignalsPage(subtitle="", signals=measure_signals(network, lambda: network(x).sum()), maps={})
    assert "Feature maps" not in render(data)
    assert "vanish" not in signals_text(data)
    for figure in (signals_figure(data.signals), *signals_figures(data.signals).values()):
        assert to_svg(figure, "signals").startswith("<svg")


def test_a_png_holds_every_pixel() -> None:
    assert image_to_png(heat(torch.eye(3).numpy())).startswith(b"\x89PNG")
