"""GwcNet-GC: GwcNet-G with a concatenation volume of 12 channels of each view beside the correlations.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch stereo/gwcnet-gc_4xb4-16ep_sceneflow-256x512
    visionattn train stereo/gwcnet-gc_4xb4-16ep_sceneflow-256x512
    visionattn test stereo/gwcnet-gc_4xb4-16ep_sceneflow-256x512 CHECKPOINT

Published: Guo et al., CVPR 2019, xy-guo/GwcNet@0987074: EPE 0.765 (a user of their code measured 0.823). Not run here.
"""

_base_ = ["./gwcnet-g_4xb4-16ep_sceneflow-256x512.py"]

model = dict(network=dict(concat_channels=12))
