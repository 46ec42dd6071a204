# UPerNet on ResNet-18 from scratch; a config gives both heads their num_classes.
norm_cfg = dict(type="BN")

model = dict(
    type="visionattn.EncoderDecoder",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        size_divisor=1,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(type="visionattn.TimmBackbone", model_name="resnet18"),
    decode_head=dict(
        type="mmseg.UPerHead",
        in_channels=[64, 128, 256, 512],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=256,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="visionattn.CrossEntropyLoss"),
    ),
    auxiliary_head=dict(
        type="mmseg.FCNHead",
        in_channels=256,
        in_index=2,
        channels=128,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="visionattn.CrossEntropyLoss", loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
