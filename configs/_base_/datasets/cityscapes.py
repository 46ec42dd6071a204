# Cityscapes, 19 classes, mmseg's published pipeline: 2048x1024, crops of 512x1024 (height x width).
# The masks are the download's (labelIds); those of cityscapesScripts: type visionattn.CityscapesTrainIds.
# A model's data_preprocessor pads to size=crop_size. Another place: --cfg-options data_root=PATH
data_root = "data/cityscapes"
crop_size = (512, 1024)
scale = (2048, 1024)  # what the long and the short side are fitted into

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
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="visionattn.Cityscapes", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.Cityscapes", data_root=data_root, split="val", pipeline=test_pipeline, test_mode=True
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.IoUMetric")
test_evaluator = val_evaluator
