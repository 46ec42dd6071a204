# Middlebury's evaluation, version 3: its 15 training scenes to evaluate on, at half size.
# Another place: --cfg-options data_root=PATH   Another size: test_dataloader.dataset.split=trainingQ or trainingF
# The 15 scenes of the benchmark, which have no truth: test_dataloader.dataset.split=testH and --submission middlebury
data_root = "data/MiddEval3"

val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.MiddleburyV3",
        data_root=data_root,
        split="trainingH",
        transforms=[dict(type="visionattn.PackStereo")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="middlebury")
test_evaluator = val_evaluator
