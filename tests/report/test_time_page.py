from __future__ import annotations

from itertools import count

import torch
from torch import nn

from detpipe.inspect.step_cost import StepCost, measure_cost
from detpipe.inspect.step_time import Seconds
from detpipe.report.time_page import TimePage, render, time_figure, time_figures, time_text


def cost() -> StepCost:
    network, x, ticks = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.ones(2, 4), count()
    return measure_cost(
        network,
        lambda: network(x).sum(),
        iterations=1,
        warm_up=0,
        backward=True,
        clock=lambda: next(ticks) / 1000,  # a millisecond a look
    )


def test_the_sum_of_the_layers_stands_beside_the_whole() -> None:
    text = time_text(TimePage(subtitle="tiny", machine="cpu", cost=cost()))
    rows = {line.split("  ")[0]: line.split()[-4:] for line in text.splitlines()}
    assert rows["sum of the layers"] == ["2.00", "5.00", "7.00", "7.00"]
    assert rows["between the layers"] == ["3.00", "6.00", "9.00", "9.00"]
    assert rows["the same steps, whole"] == ["5.00", "11.00", "16.00", "16.00"]
    assert rows["steps without hooks"] == ["1.00", "1.00", "2.00", "2.00"]
    assert "71.4%" in text  # of the linear layer: 5 of 7
    assert "15 parameters (60 B in float32" in text


def test_the_page_has_every_layer() -> None:
    html = render(TimePage(subtitle="<tiny>", machine="cpu", cost=cost()))
    assert html.count("<tr><td>0</td><td>Linear</td><td>2 x 3</td>") == 1
    assert "<tiny>" not in html


def test_no_layers() -> None:
    none = StepCost(layers=(), whole=Seconds((), ()), watched=Seconds((), ()), peak=0, parameters=0)
    assert "all layers" in render(TimePage(subtitle="", machine="", cost=none))
    for figure in (time_figure(none), *time_figures(none).values()):
        assert not figure.axes[0].patches
