"""From nothing to a trained segmentation model in minutes on two CPU cores, on made-up scenes.

visionattn train quickstart/segmentation
python tools/train.py configs/quickstart/segmentation.py
"""

_base_ = ["../_base_/datasets/made_up_ade20k.py", "../_base_/runtime/segmentation.py"]

iterations = 900
norm_cfg = dict(type="BN")

model = dict(
    type="mmseg.EncoderDecoder",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        size_divisor=1,
    ),
    backbone=dict(
        type="visionattn.TimmBackbone",
        model_name="resnet18",
        # A short training: every residual branch works from the first step.
        timm_options=dict(channels=(32, 64, 128, 256), zero_init_last=False),
        attention=[
            None,
            None,
            dict(type="EfficientAttention", key_dim=64),
            dict(type="EfficientAttention", key_dim=64),
        ],
    ),
    decode_head=dict(
        type="mmseg.SegformerHead",
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        channels=64,
        num_classes=11,
        dropout_ratio=0.0,
        norm_cfg=norm_cfg,
        loss_decode=dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True),
    ),
    test_cfg=dict(mode="whole"),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.01))
param_scheduler = [dict(type="OneCycleLR", eta_max=2e-3, total_steps=iterations, pct_start=0.15, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=iterations, max_keep_ckpts=1, save_best=None))
custom_hooks = [
    dict(type="visionattn.PictureHook", number=8),
    dict(type="visionattn.ColourBaselineHook", images=300),
]
