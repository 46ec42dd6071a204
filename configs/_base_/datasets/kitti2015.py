# KITTI 2015: 180 pairs to train on, 20 to validate on (GwcNet's split), about 375x1242.
# Another place: --cfg-options data_root=PATH   All 200: train_dataloader.dataset.split=training
# The 200 pairs of the benchmark, which have no truth: test_dataloader.dataset.split=testing and --submission kitti2015
data_root = "data/kitti2015"

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="visionattn.KITTI2015",
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
        type="visionattn.KITTI2015",
        data_root=data_root,
        split="val",
        transforms=[dict(type="visionattn.PackStereo")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="kitti")
test_evaluator = val_evaluator
