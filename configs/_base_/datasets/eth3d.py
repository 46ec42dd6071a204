# ETH3D's two-view scenes, grey: the 27 with truth to evaluate on.
# Another place: --cfg-options data_root=PATH
# The 20 scenes of the benchmark, which have no truth: test_dataloader.dataset.split=test and --submission eth3d
data_root = "data/eth3d"

val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.ETH3D",
        data_root=data_root,
        split="training",
        transforms=[dict(type="visionattn.PackStereo")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="middlebury")
test_evaluator = val_evaluator
