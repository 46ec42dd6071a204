"""GwcNet-GC, fine-tuned on KITTI 2015: 300 epochs of 180 pairs, 12 crops of 256x512 an iteration.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch stereo/gwcnet-gc_4xb3-300ep_kitti2015-256x512 \
        --load-from SCENE_FLOW_CHECKPOINT
    visionattn train stereo/gwcnet-gc_4xb3-300ep_kitti2015-256x512 --load-from SCENE_FLOW_CHECKPOINT
    visionattn test stereo/gwcnet-gc_4xb3-300ep_kitti2015-256x512 CHECKPOINT

Published: xy-guo/GwcNet@0987074; no figure was at hand, nor how many pairs they took an iteration: PSMNet's 12 here.
Not run here.
"""

_base_ = [
    "../_base_/datasets/kitti2015.py",
    "../_base_/stereo_pipelines/psmnet.py",
    "../_base_/schedules/stereo_adam_300ep_kitti.py",
    "../_base_/runtime/stereo.py",
]
model = dict(
    type="visionattn.StereoMatcher",
    network=dict(type="visionattn.GwcNet", max_disparity=192, concat_channels=12),
    loss=dict(type="visionattn.WeightedSmoothL1Loss", weights=(0.5, 0.5, 0.7, 1.0), max_disparity=192),
    padding=dict(side="top_right", fill="edge"),
)
train_dataloader = dict(batch_size=3, dataset=dict(transforms=_base_.train_transforms))
default_hooks = dict(checkpoint=dict(interval=450, save_best="kitti/EPE"))
