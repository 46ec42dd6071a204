# Scene Flow, final pass: 35,454 pairs to train on (FlyingThings3D's TRAIN, Monkaa, Driving), 4,370 to test on, 540x960.
# Crops and batch are a recipe's to change. Another place: --cfg-options data_root=PATH
# The clean pass: train_dataloader.dataset.image_pass=cleanpass and val_dataloader, test_dataloader alike.
data_root = "data/sceneflow"

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="visionattn.SceneFlow",
        data_root=data_root,
        split="train",
        image_pass="finalpass",
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
        type="visionattn.SceneFlow",
        data_root=data_root,
        split="test",
        image_pass="finalpass",
        transforms=[dict(type="visionattn.PackStereo")],
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="visionattn")
test_evaluator = val_evaluator
