# CamVid in the SegNet split, 480x360. Another place: --cfg-options data_root=PATH
data_root = "data/camvid"

train_pipeline = [
    dict(type="visionattn.LoadImage"),
    dict(type="visionattn.LoadLabels"),
    dict(
        type="visionattn.Albumentations",
        transforms=[
            dict(type="RandomScale", scale_limit=(-0.5, 1.0), p=1.0),  # 0.5 to 2 times
            dict(type="RandomCrop", height=360, width=480, pad_if_needed=True, fill=(124, 116, 104)),
            dict(type="HorizontalFlip", p=0.5),
            dict(type="ColorJitter", brightness=0.25, contrast=0.4, saturation=0.4, hue=0.05, p=0.8),
        ],
    ),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="visionattn.LoadImage"),
    dict(type="visionattn.LoadLabels"),
    dict(type="mmseg.PackSegInputs"),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="visionattn.CamVid", data_root=data_root, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="visionattn.CamVid", data_root=data_root, split="val", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="visionattn.CamVid", data_root=data_root, split="test", pipeline=test_pipeline, test_mode=True),
)
val_evaluator = dict(type="visionattn.IoUMetric")
test_evaluator = dict(type="visionattn.IoUMetric")
