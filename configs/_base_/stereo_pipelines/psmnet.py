# PSMNet's and GwcNet's training, also on KITTI: crops alone, colours as they are.
train_transforms = [
    dict(type="visionattn.StereoRandomCrop", size=(256, 512)),
    dict(type="visionattn.PackStereo"),
]
test_transforms = [dict(type="visionattn.PackStereo")]
# What GwcNet's own evaluation looks at (protocol "gwcnet"), in place of test_transforms.
gwcnet_test_transforms = [
    dict(type="visionattn.StereoBottomRightCrop", size=(512, 960)),
    dict(type="visionattn.PackStereo"),
]
