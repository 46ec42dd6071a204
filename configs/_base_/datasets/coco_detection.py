# COCO 2017, boxes; short side 640 to 800 in training, 800 in evaluation, long side at most 1333.
# Another place: --cfg-options data_root=PATH
data_root = "data/coco"

train_pipeline = [
    dict(
        type="visionattn.DetectionAugment",
        transforms=[
            dict(
                type="FittedResize",
                scales=[(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
            ),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="visionattn.PackDetection"),
]
test_pipeline = [
    dict(type="visionattn.DetectionAugment", transforms=[dict(type="FittedResize", scales=[(1333, 800)])]),
    dict(type="visionattn.PackDetection"),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=dict(type="visionattn.AspectRatioBatches"),
    dataset=dict(
        type="visionattn.CocoDetection",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        image_dir="train2017",
        keep_empty=False,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.CocoDetection",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        image_dir="val2017",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.CocoMetric", iou_types=("bbox",))
test_evaluator = val_evaluator
