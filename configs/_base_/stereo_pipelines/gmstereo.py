# GMStereo on Scene Flow (autonomousvision/unimatch @ 943a990): stretched in x, 384x768 crops, one colour change or all.
# Differs: whether the views change colour alike is drawn once for all changes, not for each.
_changes = [
    dict(type="ColorJitter", brightness=(1, 1), contrast=(0.8, 1.2), saturation=(1, 1), hue=(0, 0), p=0.5),
    dict(type="RandomGamma", gamma_limit=(70, 150), p=0.5),
    dict(type="ColorJitter", brightness=(0.5, 2.0), contrast=(1, 1), saturation=(1, 1), hue=(0, 0), p=0.5),
    dict(type="ColorJitter", brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(-0.1, 0.1), p=0.5),
    dict(type="ColorJitter", brightness=(1, 1), contrast=(1, 1), saturation=(0.8, 1.2), hue=(0, 0), p=0.5),
]
train_transforms = [
    dict(type="visionattn.StereoRandomScale", octaves=(0, 0), stretch_x=(-0.4, 0.4), least=(1, 768), p=0.5),
    dict(type="visionattn.StereoRandomCrop", size=(384, 768)),
    dict(
        type="visionattn.StereoColour",
        transforms=[
            dict(
                type="OneOf",
                transforms=[
                    dict(type="Sequential", transforms=[dict(type="OneOf", transforms=_changes, p=0.5)], p=0.5),
                    dict(type="Sequential", transforms=[dict(type="RandomOrder", transforms=_changes, n=5)], p=0.5),
                ],
                p=1.0,
            )
        ],
        asymmetric=0.5,
    ),
    dict(type="visionattn.StereoVerticalFlip", p=0.5),
    dict(type="visionattn.PackStereo"),
]
test_transforms = [dict(type="visionattn.PackStereo")]
