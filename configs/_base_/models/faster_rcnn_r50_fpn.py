# Faster R-CNN on ResNet-50 with a pyramid; stem and first stage frozen and norms in eval mode, as with weights from
# ImageNet. From scratch: model.backbone.frozen_stages=-1 model.backbone.norm_eval=False
model = dict(
    type="visionattn.Detector",
    data_preprocessor=dict(
        type="visionattn.DetectionPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        size_divisor=32,
    ),
    backbone=dict(
        type="visionattn.TimmBackbone",
        model_name="resnet50",
        checkpoint=None,
        frozen_stages=1,
        norm_eval=True,
    ),
    neck=dict(type="visionattn.FPN", out_channels=256, extra_levels=dict(type="visionattn.LastLevelMaxPool")),
    head=dict(type="visionattn.RCNNHead", num_classes=80),
)
