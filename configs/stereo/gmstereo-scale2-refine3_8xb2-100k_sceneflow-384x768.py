"""GMStereo with two scales and three steps of refinement, Scene Flow, 100,000 iterations of 16 crops of 384x768.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        stereo/gmstereo-scale2-refine3_8xb2-100k_sceneflow-384x768 --load-from CHECKPOINT_OF_SCALE2
    visionattn train stereo/gmstereo-scale2-refine3_8xb2-100k_sceneflow-384x768
    visionattn test stereo/gmstereo-scale2-refine3_8xb2-100k_sceneflow-384x768 \
        gmstereo-scale2-regrefine3-sceneflow-2dd12e97.pth

Published: autonomousvision/unimatch@943a990, scripts/gmstereo_scale2_regrefine3_train.sh, 8 A100 with 2 pairs each,
from the network with two scales; EPE 0.64 under protocol "unimatch" (as quoted; the paper was not at hand).
Not run here.
"""

_base_ = ["./gmstereo-scale2_8xb4-100k_sceneflow-384x768.py"]

model = dict(network=dict(refinements=3))
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=4e-4))
param_scheduler = [dict(type="OneCycleLR", eta_max=4e-4, total_steps=100000, pct_start=0.05, by_epoch=False)]
