"""The quickstart's network with attention between channels, trained by sharpness-aware steps, on made-up scenes.

    visionattn train segmentation/segformer_r18-channel-sam_madeup

An iteration costs two forward and two backward passes. Not run to its end here.
"""

_base_ = ["../quickstart/segmentation.py"]
model = dict(
    backbone=dict(
        attention=[None, None, dict(type="ChannelAttention", pool=8), dict(type="ChannelAttention", pool=8)],
    ),
)
optim_wrapper = dict(type="visionattn.SAMOptimWrapper", rho=0.05)
