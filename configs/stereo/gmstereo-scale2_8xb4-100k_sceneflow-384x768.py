"""GMStereo with two scales, Scene Flow, 100,000 iterations of 32 crops of 384x768.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        stereo/gmstereo-scale2_8xb4-100k_sceneflow-384x768 --load-from gmflow-scale2-things-36579974.pth
    visionattn train stereo/gmstereo-scale2_8xb4-100k_sceneflow-384x768
    visionattn test stereo/gmstereo-scale2_8xb4-100k_sceneflow-384x768 gmstereo-scale2-sceneflow-ab93ba6a.pth

Published: autonomousvision/unimatch@943a990, scripts/gmstereo_scale2_train.sh, 8 A100 with 4 pairs each, from a GMFlow
trained on flow (without --load-from: from scratch); EPE about 0.8 under protocol "unimatch" (as quoted; the paper was
not at hand). Not run here.
"""

_base_ = ["./gmstereo-scale1_8xb8-100k_sceneflow-384x768.py"]

model = dict(network=dict(splits=(2, 8)))
train_dataloader = dict(batch_size=4)
