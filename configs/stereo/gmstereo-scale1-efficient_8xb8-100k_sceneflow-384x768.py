"""GMStereo with one scale whose views attend themselves and each other by efficient attention; all else is the same.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        stereo/gmstereo-scale1-efficient_8xb8-100k_sceneflow-384x768
    visionattn train stereo/gmstereo-scale1-efficient_8xb8-100k_sceneflow-384x768
    visionattn test stereo/gmstereo-scale1-efficient_8xb8-100k_sceneflow-384x768 CHECKPOINT

Our composition, published nowhere: the whole map instead of windows, and rows of the other view. Not run here.
Another mechanism: --cfg-options model.network.self_attention.type=NonLocal
"""

_base_ = ["./gmstereo-scale1_8xb8-100k_sceneflow-384x768.py"]

model = dict(
    network=dict(self_attention=dict(type="EfficientAttention"), cross_attention=dict(type="EfficientAttention"))
)
