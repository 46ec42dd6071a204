"""Large-context segmentation at full size: of which colour are most of the marks?

visionattn train longrange/majority_full

For a GPU (not run here): pictures of 192 x 192 with 27 marks, a ResNet-18 down to stride 8 with
attention behind its two stages, 20,000 iterations of 32.
"""

_base_ = ["../_base_/datasets/made_up_majority.py", "../_base_/runtime/segmentation.py"]

iterations = 20000
data_root = "data/made_up_majority_full"
picture = dict(train=20000, val=500, size=(192, 192), discs=16, marks=27)
norm_cfg = dict(type="SyncBN")
attention = dict(type="visionattn.AttentionPlugin", attention="EfficientAttention", norm=True)

model = dict(
    type="mmseg.EncoderDecoder",
    data_preprocessor=dict(type="mmseg.SegDataPreProcessor", mean=[127.5] * 3, std=[60.0] * 3, size_divisor=1),
    backbone=dict(
        type="visionattn.TimmBackbone",
        model_name="resnet18",
        out_indices=(1, 2),
        attention=[attention, attention],
    ),
    decode_head=dict(
        type="mmseg.SegformerHead",
        in_channels=[64, 128],
        in_index=[0, 1],
        channels=64,
        num_classes=3,
        dropout_ratio=0.0,
        norm_cfg=norm_cfg,
        loss_decode=dict(type="visionattn.CrossEntropyLoss", class_weight=[0.2, 1.0, 1.0]),
    ),
    test_cfg=dict(mode="whole"),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(data_root=data_root, **picture),
)
val_dataloader = dict(dataset=dict(data_root=data_root, **picture))
test_dataloader = val_dataloader
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01))
param_scheduler = [dict(type="OneCycleLR", eta_max=1e-3, total_steps=iterations, pct_start=0.15, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=2000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
