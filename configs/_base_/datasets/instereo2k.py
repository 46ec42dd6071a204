# InStereo2K, indoors: 2,010 pairs to train on, 50 to test on.
# Another place: --cfg-options data_root=PATH
data_root = "data/instereo2k"

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="visionattn.InStereo2K",
        data_root=data_root,
        split="train",
        transforms=[
            dict(type="visionattn.StereoRandomCrop", size=(256, 512)),
            dict(type="visionattn.PackStereo"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.InStereo2K",
        data_root=data_root,
        split="test",
        transforms=[dict(type="visionattn.PackStereo")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="visionattn")
test_evaluator = val_evaluator
