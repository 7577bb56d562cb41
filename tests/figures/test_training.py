"""Learning curves: what is drawn and marked."""

from __future__ import annotations

from tfrobust.figures.training import LearningCurves, TrainingHistory


def draw(rows, elbow=None):
    return LearningCurves().draw(TrainingHistory(rows, elbow))


def test_curves_mark_stages_and_the_elbow():
    common = {"blocks": "all", "select_clean": 0.5, "select_fgsm": 0.4, "select_pgd": 0.3}
    rows = [
        {**common, "epoch": epoch, "stage": stage, "loss": loss, "select_loss": select}
        for epoch, stage, loss, select in ((1, 1, 2, 2), (2, 1, 1, 1), (3, 2, 0.5, 1.5))
    ]
    figure = draw(rows, elbow=2)
    figure.draw_without_rendering()
    loss, accuracy = figure.axes
    for axes in (loss, accuracy):
        said = {text.get_text(): text.xy[0] for text in axes.texts}
        assert said == {"stage 2: all": 2.5, "elbow: epoch 2": 2}
        # A stage is named between the curves and the title.
        stage = next(text for text in axes.texts if text.xy[0] == 2.5).get_window_extent()
        assert axes.get_window_extent().y1 <= stage.y0
        assert stage.y1 <= axes.title.get_window_extent().y0
    assert [line.get_label() for line in loss.lines][:2] == ["train", "select"]
    assert not draw(rows).axes[0].texts[1:]


def test_a_loss_on_select_above_that_on_train_is_in_view():
    common = {"blocks": "all", "stage": 1, "select_clean": 0.5, "select_fgsm": 0.4}
    rows = [
        {**common, "select_pgd": 0.3, "epoch": epoch, "loss": 1.0 / epoch, "select_loss": 2.5}
        for epoch in (1, 2, 3)
    ]
    bottom, top = draw(rows).axes[0].get_ylim()
    assert bottom == 0 and top > 2.5


def test_epochs_are_whole_numbers():
    common = {"blocks": "all", "stage": 1, "select_clean": 0.5, "select_pgd": 0.3, "loss": 1.0}
    for axes in draw([{**common, "epoch": epoch} for epoch in (1, 2)]).axes:
        assert all(tick == int(tick) for tick in axes.get_xticks())


def test_only_what_was_measured_is_drawn_and_recoveries_are_marked():
    rows = [{"blocks": "all", "stage": 1, "epoch": k, "loss": 1.0} for k in (1, 2, 3, 4)]
    rows[1] |= {"select_clean": 0.4, "select_pgd": 0.3}
    rows[3] |= {"select_clean": 0.5, "select_pgd": 0.2}
    rows[2]["event"] = "clean accuracy collapsed from 0.400 to 0.100"
    loss, accuracy = draw(rows).axes
    lines = {line.get_label(): list(line.get_xdata()) for line in accuracy.lines}
    # One line through the epochs that were measured, without a gap.
    assert lines["select, clean"] == lines["select, PGD"] == [2, 4]
    for axes in (loss, accuracy):
        assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("rolled back", 3)]
