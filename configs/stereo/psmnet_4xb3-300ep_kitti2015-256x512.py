"""PSMNet, fine-tuned on KITTI 2015: 300 epochs of 180 pairs, 12 crops of 256x512 an iteration.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch stereo/psmnet_4xb3-300ep_kitti2015-256x512 \
        --load-from SCENE_FLOW_CHECKPOINT
    visionattn train stereo/psmnet_4xb3-300ep_kitti2015-256x512 --load-from SCENE_FLOW_CHECKPOINT
    visionattn test stereo/psmnet_4xb3-300ep_kitti2015-256x512 CHECKPOINT

Published: JiaRenChang/PSMNet@87ac909, 4 GPUs: D1-all 2.32 % on the 200 pairs of the benchmark. The split into 180
and 20 pairs is GwcNet's. Not run here.
"""

_base_ = [
    "../_base_/datasets/kitti2015.py",
    "../_base_/stereo_pipelines/psmnet.py",
    "../_base_/schedules/stereo_adam_300ep_kitti.py",
    "../_base_/runtime/stereo.py",
]
model = dict(
    type="visionattn.StereoMatcher",
    network=dict(type="visionattn.PSMNet", max_disparity=192),
    loss=dict(type="visionattn.WeightedSmoothL1Loss", weights=(0.5, 0.7, 1.0)),
    padding=dict(side="top_right", fill="zeros"),
)
train_dataloader = dict(batch_size=3, dataset=dict(transforms=_base_.train_transforms))
default_hooks = dict(checkpoint=dict(interval=450, save_best="kitti/EPE"))
