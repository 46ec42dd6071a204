# Made-up stereo scenes, 128x256, with a quarter of the usual number of things and disparities below 48, drawn when they
# are asked for: a new scene in every draw of the training, the same ones in every validation. Nothing is written.
scene = dict(height=128, width=256, max_disparity=48.0, crowd=0.25, image_pass="cleanpass")
transforms = [dict(type="visionattn.PackStereo")]

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="visionattn.FreshMadeUpStereo", scenes=1000, seed=0, **scene, transforms=transforms),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="visionattn.MadeUpStereo", scenes=60, seed=1, **scene, transforms=transforms, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="visionattn.DisparityMetric", protocol="visionattn")
test_evaluator = val_evaluator
