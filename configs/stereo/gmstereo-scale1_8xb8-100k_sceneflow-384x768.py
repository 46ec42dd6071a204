"""GMStereo with one scale, Scene Flow, 100,000 iterations of 64 crops of 384x768.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        stereo/gmstereo-scale1_8xb8-100k_sceneflow-384x768 --load-from gmflow-scale1-things-e9887eda.pth
    visionattn train stereo/gmstereo-scale1_8xb8-100k_sceneflow-384x768
    visionattn test stereo/gmstereo-scale1_8xb8-100k_sceneflow-384x768 gmstereo-scale1-sceneflow-124a438f.pth

Published: autonomousvision/unimatch@943a990, scripts/gmstereo_scale1_train.sh, 8 A100 with 8 pairs each, from a GMFlow
trained on flow (without --load-from: from scratch); EPE 0.98 under protocol "unimatch" (as quoted; the paper was not at
hand). Not run here.
"""

_base_ = [
    "../_base_/datasets/sceneflow.py",
    "../_base_/stereo_pipelines/gmstereo.py",
    "../_base_/schedules/stereo_onecycle_100k.py",
    "../_base_/runtime/stereo.py",
]
model = dict(
    type="visionattn.StereoMatcher",
    network=dict(type="visionattn.GMStereo", splits=(2,)),
    loss=dict(type="visionattn.SequenceSmoothL1Loss", gamma=0.9, max_disparity=400),
    padding=dict(side="centre", fill="edge"),
)
train_dataloader = dict(batch_size=8, dataset=dict(transforms=_base_.train_transforms))
test_evaluator = [
    dict(type="visionattn.DisparityMetric", protocol="visionattn"),
    dict(type="visionattn.DisparityMetric", protocol="unimatch"),
]
default_hooks = dict(checkpoint=dict(interval=10000))
