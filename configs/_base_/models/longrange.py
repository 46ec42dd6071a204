# A small network whose pixels see no farther than 14 pixels: what lies beyond, only the attention behind its one stage
# can tell. The attention is added as it is (zero_init=False), for a training too short to open a gate first.
norm_cfg = dict(type="BN")
model = dict(
    type="mmseg.EncoderDecoder",
    data_preprocessor=dict(type="mmseg.SegDataPreProcessor", mean=[127.5] * 3, std=[60.0] * 3, size_divisor=1),
    backbone=dict(
        type="visionattn.TimmBackbone",
        model_name="resnet26",
        timm_options=dict(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), zero_init_last=False),
        out_indices=(1,),
        attention={
            "1": dict(type="visionattn.AttentionPlugin", attention="EfficientAttention", norm=True, zero_init=False)
        },
    ),
    decode_head=dict(
        type="mmseg.FCNHead",
        in_channels=32,
        in_index=0,
        channels=32,
        num_convs=2,
        kernel_size=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=3,
        norm_cfg=norm_cfg,
        loss_decode=dict(type="visionattn.CrossEntropyLoss", class_weight=[0.2, 1.0, 1.0]),
    ),
    test_cfg=dict(mode="whole"),
)
