# BCCD, blood cells, 640x480, 3 classes, as COCO's json has them. Another place: --cfg-options data_root=PATH
# Another size: --cfg-options train_dataloader.dataset.pipeline.0.transforms.0.scales=[(320,240)], and val's and test's.
data_root = "data/bccd"
fitted = dict(type="FittedResize", scales=[(640, 480)])

train_pipeline = [
    dict(
        type="visionattn.DetectionAugment",
        transforms=[
            fitted,
            dict(type="HorizontalFlip", p=0.5),
            dict(type="VerticalFlip", p=0.5),
            dict(type="ColorJitter", brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02, p=0.8),
        ],
    ),
    dict(type="visionattn.PackDetection"),
]
test_pipeline = [
    dict(type="visionattn.DetectionAugment", transforms=[fitted]),
    dict(type="visionattn.PackDetection"),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="visionattn.CocoDetection",
        data_root=data_root,
        ann_file="bccd_train.json",
        image_dir="images",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.CocoDetection",
        data_root=data_root,
        ann_file="bccd_val.json",
        image_dir="images",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.CocoDetection",
        data_root=data_root,
        ann_file="bccd_test.json",
        image_dir="images",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="visionattn.CocoMetric", iou_types=("bbox",))
test_evaluator = val_evaluator
