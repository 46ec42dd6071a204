# Made-up scenes in COCO's layout, 192x256, 8 classes, boxes and masks; written when they are missing.
data_root = "data/made_up_coco"

train_pipeline = [
    dict(type="visionattn.DetectionAugment", transforms=[dict(type="HorizontalFlip", p=0.5)]),
    dict(type="visionattn.PackDetection"),
]
test_pipeline = [dict(type="visionattn.PackDetection")]

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="visionattn.MadeUpCoco",
        data_root=data_root,
        split="train",
        with_masks=True,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.MadeUpCoco",
        data_root=data_root,
        split="val",
        with_masks=True,  # for the pictures
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.CocoMetric", iou_types=("bbox", "segm"))
test_evaluator = val_evaluator
