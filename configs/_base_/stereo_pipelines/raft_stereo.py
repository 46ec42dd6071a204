# RAFT-Stereo on Scene Flow (princeton-vl/RAFT-Stereo @ 6068c1a): colours, erased patches, scale and stretch, rows that
# are not quite rectified, 320x720 crops.
train_transforms = [
    dict(
        type="visionattn.StereoColour",
        transforms=[
            dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=(0.0, 1.4), hue=0.159, p=1.0),
        ],
        asymmetric=0.2,
    ),
    dict(type="visionattn.RightEraser", number=(1, 2), sides=(50, 99), p=0.5),
    dict(
        type="visionattn.StereoRandomScale",
        octaves=(-0.2, 0.4),
        stretch_x=(-0.2, 0.2),
        stretch_y=(-0.2, 0.2),
        stretch_p=0.8,
        least=(328, 728),
    ),
    dict(type="visionattn.RightRowShift", rows=2),
    dict(type="visionattn.StereoRandomCrop", size=(320, 720)),
    dict(type="visionattn.PackStereo"),
]
test_transforms = [dict(type="visionattn.PackStereo")]
