# Grey discs among coloured marks: of which colour are most of the marks? 96 x 96;
# written when they are missing.
data_root = "data/made_up_majority"

train_pipeline = [
    dict(type="visionattn.LoadImage"),
    dict(type="visionattn.LoadLabels"),
    dict(type="visionattn.Albumentations", transforms=[dict(type="D4", p=1.0)]),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="visionattn.LoadImage"),
    dict(type="visionattn.LoadLabels"),
    dict(type="mmseg.PackSegInputs"),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="visionattn.MadeUpMajority", data_root=data_root, split="training", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="visionattn.MadeUpMajority",
        data_root=data_root,
        split="validation",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.IoUMetric")
test_evaluator = val_evaluator
