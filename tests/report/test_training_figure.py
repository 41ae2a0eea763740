"""The figure of a training log: which rows and keys get a line, and which a panel."""

from __future__ import annotations

import numpy as np
import pytest

from detpipe.report.training_figure import has_curves, single_values, smoothed, training_figure


def test_the_loss_takes_the_rows_that_have_it():
    rows = [{"iteration": i, "loss": 1 / i} for i in range(1, 40)]
    rows[9] |= {"val_loss": 0.4, "val_accuracy": 0.8}
    rows[19] |= {"val_loss": None, "val_accuracy": 0.9}
    rows[29] |= {"loss": float("nan")}
    top, bottom = training_figure(rows, progress=False).axes
    assert len(np.asarray(top.lines[0].get_xdata())) == 38
    assert np.asarray(top.lines[2].get_xdata()).tolist() == [10]
    assert np.asarray(bottom.lines[0].get_ydata()).tolist() == [0.8, 0.9]


def test_one_value_is_a_sentence_and_not_a_curve():
    once = [{"iteration": 600, "loss": 2.0, "val_accuracy": 0.95}]
    assert not has_curves(once)
    assert single_values(once) == ["loss 2 (iteration 600)", "validation accuracy 0.95 (iteration 600)"]
    twice = [{"iteration": 1, "loss": 3.0}, *once]
    assert [axes.get_ylabel() for axes in training_figure(twice).axes] == ["loss"]
    assert single_values(twice) == ["validation accuracy 0.95 (iteration 600)"]


def test_validation_is_drawn_with_the_same_loss_of_the_training():
    """R-CNN's training has a box loss, too; its validation has the class loss alone."""
    rows = [{"iteration": i, "loss": 3.0, "class_loss": 1.0, "box_loss": 2.0} for i in (1, 2)]
    rows[1]["val_loss"] = 1.5
    classes, training = training_figure(rows, progress=False).axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in classes.lines}
    assert (classes.get_ylabel(), drawn["training"], drawn["validation"]) == ("class loss", [1, 1], [1.5])
    assert training.get_ylabel() == "training loss"
    assert {line.get_label() for line in training.lines if not line.get_label().startswith("_")} == {"loss", "box loss"}
    without_boxes = [{"iteration": i, "loss": 1.0, "class_loss": 1.0, "val_loss": 1.5} for i in (1, 2)]
    assert [axes.get_ylabel() for axes in training_figure(without_boxes, progress=False).axes] == ["class loss"]


def test_the_axis_of_accuracy_ends_at_100_percent():
    rows = [{"iteration": i, "accuracy": 0.9 + i / 100, "val_accuracy": 1.0} for i in range(1, 11)]
    (axes,) = training_figure(rows, progress=False).axes
    assert axes.get_ylim()[1] == 1.0
    low = [{"iteration": i, "accuracy": i / 100} for i in range(1, 11)]
    assert training_figure(low, progress=False).axes[0].get_ylim()[1] < 0.2


def test_no_legend_covers_a_line():
    rows = [{"iteration": i, "loss": 3.0, "class_loss": 1.0, "box_loss": 2.0, "val_loss": 1.0} for i in range(1, 9)]
    figure = training_figure(rows, progress=False)
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_window_extent().y0 >= axes.get_window_extent().y1


def test_the_recall_of_a_network_that_proposes_has_a_panel_of_its_own():
    rows = [{"iteration": i, "loss": 1 / i, "val_recall_10": 0.2 * i, "val_ar_10": 0.1 * i} for i in (1, 2)]
    loss, recall = training_figure(rows, progress=False).axes
    assert loss.get_ylabel() == "loss"
    drawn = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in recall.lines}
    assert drawn == {"recall, 10 boxes": [[1, 0.2], [2, 0.4]], "average recall, 10 boxes": [[1, 0.1], [2, 0.2]]}
    assert recall.get_ylim() == (0, 1)


def test_a_smooth_line_keeps_a_constant_and_its_ends():
    assert smoothed(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))


def test_an_empty_log_has_an_empty_panel():
    assert [axes.lines[:] for axes in training_figure([]).axes] == [[]]


def test_progress_adds_rate_speed_and_waiting():
    rows = [{"iteration": i, "loss": 1.0, "lr": 0.1, "examples_per_second": 9.0, "waiting": 0.0} for i in (1, 2)]
    labels = [axes.get_ylabel() for axes in training_figure(rows).axes]
    assert labels == ["loss", "learning rate", "examples/s, so far", "waiting, so far"]
    assert len(training_figure(rows, progress=False).axes) == 1
