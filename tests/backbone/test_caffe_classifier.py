from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from detpipe.backbone.caffe.net_spec import NetSpec
from detpipe.backbone.caffe_backbone import grey
from detpipe.backbone.caffe_classifier import build_classifier

IMAGES = torch.randint(0, 256, (3, 28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 0, 7])


def test_lenets_loss_is_the_cross_entropy_of_its_scores() -> None:
    torch.manual_seed(0)
    one = build_classifier("lenet", None, [0.0], 1 / 256, None, train=False)
    x = grey(IMAGES.flip(-1).permute(0, 3, 1, 2) / 256)
    scores = one.net.named_blobs(["ip2"], x)["ip2"]
    assert (one.outputs, one.spec.size, one.is_grey) == (10, (28, 28), True)
    torch.testing.assert_close(one.loss(IMAGES, LABELS), F.cross_entropy(scores, LABELS))


def auxiliary(folder: Path, *, deploy: bool) -> str:
    """A net with a second loss of weight 0.3 in training, or none at all in a deploy file."""
    spec, xavier = NetSpec("two"), {"type": "xavier"}
    tops = ["data"] if deploy else ["data", "label"]
    shapes = [{"dim": [1, 3, 28, 28]}, {"dim": [1]}][: len(tops)]
    spec.add_tops("Input", name="data", tops=tops, shape=shapes)
    fc = spec.add("InnerProduct", "data", name="fc", num_output=9, weight_filler=xavier)
    if deploy:
        spec.add("Softmax", fc, name="prob")
    else:
        train = [{"phase": "TRAIN"}]
        aux = spec.add("InnerProduct", "data", name="aux", num_output=9, weight_filler=xavier, include=train)
        spec.add("SoftmaxWithLoss", aux, "label", name="loss1", loss_weight=0.3, include=train)
        spec.add("SoftmaxWithLoss", fc, "label", name="loss2")
    (folder / "two.prototxt").write_text(spec.prototxt())
    return str(folder / "two.prototxt")


def test_in_training_auxiliary_losses_count(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = build_classifier(auxiliary(tmp_path, deploy=False), None, [0.0], 1 / 256, None, train=True)
    x = IMAGES.flip(-1).permute(0, 3, 1, 2) / 256
    blobs = one.net.named_blobs(["fc", "aux"], x)
    wanted = F.cross_entropy(blobs["fc"], LABELS) + 0.3 * F.cross_entropy(blobs["aux"], LABELS)
    torch.testing.assert_close(one.loss(IMAGES, LABELS), wanted)
    test = build_classifier(auxiliary(tmp_path, deploy=False), None, [0.0], 1.0, None, train=False)
    assert list(test.net.layers) == ["fc", "loss2"]


def test_a_deploy_file_without_a_loss(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = build_classifier(auxiliary(tmp_path, deploy=True), None, [0.0], 1 / 256, None, train=True)
    scores = one.net(IMAGES.flip(-1).permute(0, 3, 1, 2) / 256)["prob"].log()
    torch.testing.assert_close(one.loss(IMAGES, LABELS), F.nll_loss(scores, LABELS))
    assert one.outputs == 9


def test_a_net_without_a_softmax(tmp_path: Path) -> None:
    text = (Path(auxiliary(tmp_path, deploy=True)).read_text()).replace('"Softmax"', '"Sigmoid"')
    (tmp_path / "none.prototxt").write_text(text)
    with pytest.raises(ValueError, match=r"none\.prototxt: expected a net that ends in one of Softmax"):
        build_classifier(str(tmp_path / "none.prototxt"), None, [0.0], 1.0, None, train=False)


def test_the_weights_that_caffe_trained(shared_data: Path) -> None:
    weights = shared_data / "caffe/lenet_ethereon/lenet_iter_10000.caffemodel"
    one = build_classifier("lenet", weights, [0.0], 1 / 256, None, train=False)
    assert one.net.layer_blobs()["conv1"][0].std() == pytest.approx(0.224, abs=1e-3)
