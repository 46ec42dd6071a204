from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmseg.models import SegTTAModel as MMSegTTAModel
from tiny_segmentation import SIZE, write_segmentation

from visionattn.cli.main import main
from visionattn.data.images import read_image
from visionattn.engine.config import load_config
from visionattn.engine.inference import Predictor
from visionattn.engine.runner import Runner
from visionattn.registry import MODELS
from visionattn.segmentation.tta import SegTTAModel, tta_pipeline, with_tta

SCALES = (0.5, 1.0, 1.6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(config, checkpoint) of a segmentor that was trained for a moment."""
    folder = tmp_path_factory.mktemp("tta")
    config = load_config(write_segmentation(folder))
    config.work_dir = str(folder / "run")
    with DefaultScope.overwrite_default_scope("mmseg"):
        Runner.from_cfg(config).train()
    return folder / "bands.py", folder / "run" / "iter_30.pth"


def small(config):
    """The config's augmented test at a few sizes."""
    config.tta_pipeline = tta_pipeline(config.test_dataloader.dataset.pipeline, SCALES)
    return with_tta(config)


def model_and_batch(config, images=2):
    """The augmented model, and a batch as the loader collates it."""
    config = small(config)
    model = MODELS.build(config.model).eval()
    torch.nn.init.normal_(model.module.decode_head.conv_seg.weight)
    pipeline = Compose(config.test_dataloader.dataset.pipeline)
    files = [
        {"img_path": f"{config.data_root}/images/{i}.png", "seg_map_path": f"{config.data_root}/masks/{i}.png"}
        for i in range(images)
    ]
    return model, pseudo_collate([pipeline({**file, "num_classes": 3}) for file in files])


def test_probabilities_are_averaged_one_augmentation_after_another(run):
    """By hand: each size, mirrored and back, resized to the image, softmax, mean."""
    config = load_config(run[0])
    model, batch = model_and_batch(config)
    assert len(batch["inputs"]) == 2 * len(SCALES)
    with torch.inference_mode():
        merged = model.test_step(copy.deepcopy(batch))
        for index, sample in enumerate(merged):
            image = read_image(f"{config.data_root}/images/{index}.png")
            total = 0
            for augmented in (inputs[index] for inputs in batch["inputs"]):
                size = augmented.shape[-2:]
                # mmcv's sizes, and which half is mirrored, are not taken from its metainfo: the pixels tell.
                plain = torch.nn.functional.interpolate(
                    torch.from_numpy(image).permute(2, 0, 1)[None].float(), size=size, mode="area"
                )[0]
                mirrored = (augmented - plain).abs().mean() > (augmented.flip(-1) - plain).abs().mean()
                data = model.module.data_preprocessor({"inputs": [augmented], "data_samples": None})
                logits = model.module._forward(data["inputs"])
                # As the segmentor: to the input's size, then mirrored back, then to the image's size.
                for target in (size, SIZE):
                    logits = torch.nn.functional.interpolate(logits, target, mode="bilinear")
                    if target is size and mirrored:
                        logits = logits.flip(-1)
                total = total + logits[0].softmax(0)
            expected = total / len(batch["inputs"])
            torch.testing.assert_close(sample.seg_logits.data.softmax(0), expected)
            assert torch.equal(sample.pred_sem_seg.data[0], sample.seg_logits.data.argmax(0))
            assert sample.img_path.endswith(f"{index}.png")
            assert sample.gt_sem_seg.data.shape == (1, *SIZE)


def test_predictions_are_mmsegs(run):
    model, batch = model_and_batch(load_config(run[0]))
    theirs = MMSegTTAModel(model.module)
    with torch.inference_mode():
        ours = model.test_step(copy.deepcopy(batch))
        for one, other in zip(ours, theirs.test_step(copy.deepcopy(batch)), strict=True):
            assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
            assert torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data)
            assert one.img_path == other.img_path
        several = zip(*[model.module.test_step(pick(batch, i)) for i in range(len(batch["inputs"]))], strict=True)
        for one, other in zip(ours, model.merge_preds(list(several)), strict=True):
            torch.testing.assert_close(one.seg_logits.data, other.seg_logits.data)


def pick(batch, index):
    return {key: copy.deepcopy(value[index]) for key, value in batch.items()}


def test_truth_is_not_mirrored(run):
    _, batch = model_and_batch(load_config(run[0]))
    flips = [samples[0].flip for samples in batch["data_samples"]]
    assert flips == [False, True] * len(SCALES)
    first = batch["data_samples"][0][0].gt_sem_seg.data
    assert not torch.equal(first, first.flip(-1))
    assert all(torch.equal(samples[0].gt_sem_seg.data, first) for samples in batch["data_samples"])


def test_one_channel_is_a_probability_already():
    """mmseg's segmentor takes the sigmoid, and its model of this name takes it again: 0.5 and above."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    class Fixed(torch.nn.Module):
        decode_head = type("Head", (), {"threshold": 0.3})

        def test_step(self, data):
            return [SegDataSample(seg_logits=PixelData(data=value.clone())) for value in data["inputs"]]

    values = [[torch.full((1, 2, 2), 0.1)], [torch.full((1, 2, 2), 0.3)]]
    (sample,) = SegTTAModel(Fixed()).test_step({"inputs": values})
    torch.testing.assert_close(sample.seg_logits.data, torch.full((1, 2, 2), 0.2))
    assert not sample.pred_sem_seg.data.any()


def test_predictor_takes_an_augmented_config(run):
    config, checkpoint = run
    image = read_image(f"{load_config(config).data_root}/images/0.png")
    plain = Predictor(config, checkpoint, "cpu")(image)
    augmented = Predictor(small(load_config(config)), checkpoint, "cpu")(image)
    assert augmented.pred_sem_seg.shape == SIZE
    assert (augmented.pred_sem_seg.data == plain.pred_sem_seg.data).float().mean() > 0.7
    assert not torch.equal(augmented.seg_logits.data, plain.seg_logits.data)


def test_command(run, tmp_path, capsys):
    """Through the Runner with pictures: better or worse, but not the plain test's numbers."""
    config, checkpoint = run
    scores = []
    for options in ([], ["--tta"]):
        out = ["--work-dir", str(tmp_path / f"run{len(scores)}"), "--out", str(tmp_path / f"pictures{len(scores)}")]
        assert main(["test", str(config), str(checkpoint), *options, *out]) == 0
        scores.append(float(capsys.readouterr().out.partition("mIoU ")[2].split()[0]))
    assert scores[0] != scores[1]
    assert np.allclose(scores, scores[0], atol=0.3)
    assert len(list((tmp_path / "pictures1").iterdir())) == 5


def test_command_needs_a_segmentation_config(tmp_path, capsys):
    config = tmp_path / "other.py"
    config.write_text('default_scope = "visionattn"\ntest_dataloader = dict(dataset=dict(type="x"))\n')
    assert main(["test", str(config), "weights.pth", "--tta"]) == 2
    assert "--tta is for segmentation" in capsys.readouterr().err


def test_pipeline_is_cut_where_the_labels_are_loaded():
    resize, labels, pack = {"type": "Resize", "scale": (9, 9)}, {"type": "mmseg.LoadAnnotations"}, {"type": "Pack"}
    steps = tta_pipeline([{"type": "LoadImage"}, resize, labels, pack], (1, 2))
    assert steps[:2] == [{"type": "LoadImage"}, resize]
    sizes, flips, *rest = steps[2]["transforms"]
    assert [size["scale_factor"] for size in sizes] == [1.0, 2.0]
    assert [flip["prob"] for flip in flips] == [0.0, 1.0]
    assert rest == [[labels], [pack]]
    assert tta_pipeline([{"type": "LoadImage"}, pack])[1]["transforms"][2:] == [[pack]]
    with pytest.raises(ValueError, match="pipeline is empty"):
        tta_pipeline([])


def test_the_configs_own_augmentation_comes_first(run):
    config = load_config(run[0])
    config.tta_pipeline = [{"type": "LoadImage"}]
    config.tta_model = {"type": "mmseg.SegTTAModel"}
    config.test_dataloader.dataset = {"type": "RepeatDataset", "dataset": config.test_dataloader.dataset}
    changed = with_tta(config)
    assert changed.test_dataloader.dataset.dataset.pipeline == config.tta_pipeline
    assert changed.model.type == "mmseg.SegTTAModel"
    assert changed.model.module == config.model
    assert config.model.type == "EncoderDecoder"
