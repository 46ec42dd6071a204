# Pascal Context, 59 classes, mmseg's published pipeline: long side 520, crops of 480x480.
# With background as a 60th class: type visionattn.PascalContext60 in all three.
# A model's data_preprocessor pads to size=crop_size. Another place: --cfg-options data_root=PATH
data_root = "data/VOCdevkit/VOC2010"
crop_size = (480, 480)
scale = (520, 520)  # what the long and the short side are fitted into

train_pipeline = [
    dict(type="visionattn.LoadImage"),
    dict(type="visionattn.LoadLabels"),
    dict(
        type="visionattn.Albumentations",
        transforms=[
            dict(type="ScaledCrop", scale=scale, ratio_range=(0.5, 2.0), crop_size=crop_size, cat_max_ratio=0.75),
            dict(type="HorizontalFlip", p=0.5),
            dict(type="PhotometricDistortion"),
        ],
    ),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="visionattn.LoadImage"),
    dict(type="mmseg.Resize", scale=scale, keep_ratio=True),
    dict(type="visionattn.LoadLabels"),  # behind Resize: predictions are brought back to the image's own size
    dict(type="mmseg.PackSegInputs"),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="visionattn.PascalContext59", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.PascalContext59", data_root=data_root, split="val", pipeline=test_pipeline, test_mode=True
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.IoUMetric")
test_evaluator = val_evaluator
