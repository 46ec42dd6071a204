"""PSMNet, Scene Flow's clean pass, 10 epochs of 12 crops of 256x512 an iteration.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch stereo/psmnet_4xb3-10ep_sceneflow-256x512
    visionattn train stereo/psmnet_4xb3-10ep_sceneflow-256x512
    visionattn test stereo/psmnet_4xb3-10ep_sceneflow-256x512 CHECKPOINT

Published: Chang and Chen, CVPR 2018, JiaRenChang/PSMNet@87ac909, 4 GPUs: EPE 1.09; 0.974 with the weights that the
authors published in 2021. The test is their own evaluation (clean pass, protocol "psmnet"); the validation reports
protocol "visionattn" on the final pass. Not run here.
The weights of 2018 want --cfg-options model.network.align_corners=True
"""

_base_ = [
    "../_base_/datasets/sceneflow.py",
    "../_base_/stereo_pipelines/psmnet.py",
    "../_base_/schedules/stereo_adam_10ep.py",
    "../_base_/runtime/stereo.py",
]
model = dict(
    type="visionattn.StereoMatcher",
    network=dict(type="visionattn.PSMNet", max_disparity=192),
    loss=dict(type="visionattn.WeightedSmoothL1Loss", weights=(0.5, 0.7, 1.0), max_disparity=192),
    padding=dict(side="top_right", fill="zeros"),
)
train_dataloader = dict(batch_size=3, dataset=dict(image_pass="cleanpass", transforms=_base_.train_transforms))
test_dataloader = dict(dataset=dict(image_pass="cleanpass"))
test_evaluator = dict(protocol="psmnet")
default_hooks = dict(checkpoint=dict(interval=5909))
