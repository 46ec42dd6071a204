"""RAFT-Stereo in its realtime form: an eighth of the resolution, two scales, one encoder, seven steps.

    torchrun --nproc-per-node=2 tools/train.py --launcher pytorch \
        stereo/raft-stereo-realtime_2xb4-200k_sceneflow-320x720 --amp
    visionattn train stereo/raft-stereo-realtime_2xb4-200k_sceneflow-320x720 --amp
    visionattn test stereo/raft-stereo-realtime_2xb4-200k_sceneflow-320x720 raftstereo-realtime.pth

Published: the network alone (princeton-vl/RAFT-Stereo@6068c1a, README); how it was trained is not said: this is the
training of the default network. Not run here.
"""

_base_ = ["./raft-stereo_2xb4-200k_sceneflow-320x720.py"]

model = dict(network=dict(iterations=7, downsample=3, scales=2, shared_backbone=True, slow_fast=True))
# The checkpoints hold the weights of a third scale, which two do not use.
find_unused_parameters = True
