"""CompactStereo learned from made-up scenes alone, for pairs of any kind: a run that can be stopped and gone on with.

    visionattn train stereo/compact_r18_1xb2-100k_madeup-160x480 --resume auto
    visionattn test stereo/compact_r18_1xb2-100k_madeup-160x480 CHECKPOINT
    python benchmarks/stereo_pairs.py --checkpoint CHECKPOINT \
        --config configs/stereo/compact_r18_1xb2-100k_madeup-160x480.py

Every pair is a scene that was never drawn before. The rate stays what it is and the weights are averaged, so the run
has no end that must be known at its beginning; `--resume auto` goes on after `max_iters` was raised, too. Figures on
real pairs: docs/results.md.
"""

_base_ = ["../_base_/runtime/stereo.py"]

scene = dict(height=240, width=640, max_disparity=192.0)
train_transforms = [
    dict(
        type="visionattn.StereoColour",
        transforms=[dict(type="ColorJitter", brightness=0.3, contrast=0.3, saturation=0.5, hue=0.05, p=0.7)],
        asymmetric=0.2,
    ),
    dict(type="visionattn.RightEraser", number=(1, 2), sides=(20, 60), p=0.3),
    dict(type="visionattn.StereoRandomCrop", size=(160, 480)),
    dict(type="visionattn.StereoVerticalFlip", p=0.3),
    dict(type="visionattn.PackStereo"),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="visionattn.FreshMadeUpStereo", scenes=1000, seed=0, **scene, transforms=train_transforms),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.MadeUpStereo",
        scenes=40,
        seed=1,
        height=256,
        width=512,
        max_disparity=192.0,
        transforms=[dict(type="visionattn.PackStereo")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="visionattn")
test_evaluator = val_evaluator

model = dict(
    type="visionattn.StereoMatcher",
    network=dict(
        type="visionattn.CompactStereo",
        backbone=dict(
            type="visionattn.TimmBackbone",
            model_name="resnet18",
            out_indices=(1, 2, 3),  # strides 4, 8 and 16
            timm_options=dict(channels=(32, 64, 96, 128), zero_init_last=False),
        ),
        max_disparity=192,
    ),
    loss=dict(type="visionattn.WeightedSmoothL1Loss", weights=(0.5, 1.0), max_disparity=192),
)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4), clip_grad=dict(max_norm=1.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, end=100, by_epoch=False),
    dict(type="ConstantLR", factor=1.0, begin=100, end=100000, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=100000, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=1000))
custom_hooks = [
    # The average looks back over a tenth of the run, later over 200 iterations.
    dict(type="EMAHook", ema_type="MomentumAnnealingEMA", gamma=10, momentum=0.005, update_buffers=True),
    dict(type="visionattn.DisparityPictureHook", number=8),
]
