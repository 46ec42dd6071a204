# Your own pairs: two text files below data_root with a line `left right disparity` for each, paths below data_root.
# Another place: --cfg-options data_root=PATH   Disparities in PNG files: png_scale and png_bits of either data set.
data_root = "data/pairs"

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="visionattn.PairList",
        data_root=data_root,
        ann_file="train.txt",
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
        type="visionattn.PairList",
        data_root=data_root,
        ann_file="val.txt",
        transforms=[dict(type="visionattn.PackStereo")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="visionattn")
test_evaluator = val_evaluator
