"""GwcNet-G, Scene Flow's final pass, 16 epochs of 16 crops of 256x512 an iteration.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch stereo/gwcnet-g_4xb4-16ep_sceneflow-256x512
    visionattn train stereo/gwcnet-g_4xb4-16ep_sceneflow-256x512
    visionattn test stereo/gwcnet-g_4xb4-16ep_sceneflow-256x512 CHECKPOINT

Published: Guo et al., CVPR 2019, xy-guo/GwcNet@0987074; no figure of this variant was at hand. The test is the
authors' own evaluation (protocol "gwcnet", the lower right 512x960 of each image); the validation reports protocol
"visionattn" on whole images. Not run here.
"""

_base_ = [
    "../_base_/datasets/sceneflow.py",
    "../_base_/stereo_pipelines/psmnet.py",
    "../_base_/schedules/stereo_adam_16ep.py",
    "../_base_/runtime/stereo.py",
]
model = dict(
    type="visionattn.StereoMatcher",
    network=dict(type="visionattn.GwcNet", max_disparity=192),
    loss=dict(type="visionattn.WeightedSmoothL1Loss", weights=(0.5, 0.5, 0.7, 1.0), max_disparity=192),
    padding=dict(side="top_right", fill="edge"),
)
train_dataloader = dict(batch_size=4, dataset=dict(transforms=_base_.train_transforms))
test_dataloader = dict(dataset=dict(transforms=_base_.gwcnet_test_transforms))
test_evaluator = dict(protocol="gwcnet")
default_hooks = dict(checkpoint=dict(interval=5909))
