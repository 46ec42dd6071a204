"""From nothing to a trained stereo network in minutes on two CPU cores, on made-up scenes.

visionattn train quickstart/stereo
python tools/train.py configs/quickstart/stereo.py
"""

_base_ = ["../_base_/datasets/made_up_stereo.py", "../_base_/runtime/stereo.py"]

iterations = 700

model = dict(
    type="visionattn.StereoMatcher",
    network=dict(
        type="visionattn.CompactStereo",
        backbone=dict(
            type="visionattn.TimmBackbone",
            model_name="resnet18",
            out_indices=(1, 2),  # strides 4 and 8
            # A short training: every residual branch works from the first step.
            timm_options=dict(channels=(32, 64, 96, 128), zero_init_last=False),
        ),
        max_disparity=48,
        channels=32,
        attention=dict(features=dict(type="EfficientAttention"), cost=dict(type="EfficientAttention")),
    ),
    loss=dict(type="visionattn.WeightedSmoothL1Loss", weights=(0.5, 1.0), max_disparity=48),
)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0)
)
param_scheduler = [dict(type="OneCycleLR", eta_max=3e-3, total_steps=iterations, pct_start=0.1, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=iterations, max_keep_ckpts=1, save_best=None))
custom_hooks = [
    dict(type="visionattn.DisparityPictureHook", number=8),
    dict(type="visionattn.ConstantBaselineHook"),
]
