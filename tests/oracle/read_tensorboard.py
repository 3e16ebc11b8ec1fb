"""Reads the event files of write_tensorboard.ts with both of TensorBoard's own readers and checks what they make of them.

Usage: python read_tensorboard.py <folder of write_tensorboard.ts>; needs `pip install tensorboard`.
"""

import math
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginAccumulator
from tensorboard.util import tensor_util

PICTURE = "samples/00-seed42 a red fox"


def check_plain(folder: str) -> None:
    """The accumulator that scripts use."""
    board = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    loss = [(e.step, e.value) for e in board.Scalars("train/loss")]
    assert [step for step, _ in loss] == list(range(1, 11)), loss
    # Steps 6 to 8 of the first file were not in the checkpoint and are gone; the second file's stand in their place.
    assert math.isclose(loss[4][1], 1 / 5, rel_tol=1e-6) and loss[5][1] == 106, loss
    norms = [(e.step, e.value) for e in board.Scalars("train/grad_norm")]
    assert [step for step, _ in norms] == [1, 2, 3, 4, 5] and math.isnan(norms[2][1]), norms
    assert [e.step for e in board.Scalars("validation/loss")] == [4]
    images = board.Images(PICTURE)
    assert [(e.step, e.width, e.height) for e in images] == [(0, 16, 8), (10, 16, 8)], images
    config = [(e.step, e.tensor_proto.string_val[0].decode()) for e in board.Tensors("config")]
    assert config == [(0, "    [train]\n    steps = 10\n    ```"), (6, "    continued")], config


def check_pages(folder: str) -> None:
    """The accumulator behind TensorBoard's pages, which shows every value by its plugin."""
    board = PluginAccumulator(folder, tensor_size_guidance={"scalars": 0, "images": 0, "text": 0})
    board.Reload()
    steps = {tag: [e.step for e in board.Tensors(tag)] for tag in board.Tags()["tensors"]}
    assert set(board.PluginTagToContent("scalars")) == {
        "train/loss",
        "train/lr",
        "train/grad_norm",
        "validation/loss",
    }
    assert set(board.PluginTagToContent("images")) == {PICTURE}
    assert set(board.PluginTagToContent("text")) == {"settings", "config"}
    assert steps["train/loss"] == list(range(1, 11)), steps
    assert steps["train/grad_norm"] == [1, 2, 3, 4, 5], steps
    assert steps[PICTURE] == [0, 10], steps
    assert "seed 42" in board.SummaryMetadata(PICTURE).summary_description
    for event in board.Tensors(PICTURE):
        width, height, png = tensor_util.make_ndarray(event.tensor_proto)
        assert png.startswith(b"\x89PNG") and struct.unpack(">II", png[16:24]) == (int(width), int(height))


if __name__ == "__main__":
    check_plain(f"{sys.argv[1]}/tb")
    check_pages(f"{sys.argv[1]}/tb")
    print("both readers agree with what was written")
